"""Reads a config from YAML that holds only the changes to the defaults; one file may name several runs.

An unknown key is an error that names the nearest known one.
"""

import difflib
import re
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from idif.config.sections import Config, method_section, method_sections
from idif.config.value_types import mistyped
from idif.errors import ConfigError


def load_configs(path: Path, overrides: Sequence[str] = ()) -> list[Config]:
    """Read a config file: one run, or as many as its ``matrix`` names.

    Args:
        path: YAML file.
        overrides: ``KEY=VALUE`` with a dotted key and a YAML value, applied last.

    Raises:
        ConfigError: file missing or not YAML, unknown key (the nearest is named), bad value.
    """
    try:
        raw = read_yaml(_find(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = installed_configs()
        names = ", ".join(sorted(file.name for file in shipped.glob("*.yaml"))) if shipped else ""
        hint = f"; those of the installation are in {shipped}: {names}" if names else ""
        raise ConfigError(f"{path}: no such config file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: config cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected sections such as `data:` and `train:`, got {type(raw).__name__}")
    return resolve(raw, overrides, source=str(path))


def installed_configs() -> Path | None:
    """Folder of the configs shipped with an installation that has no checkout; None if there is none."""
    folder = Path(sysconfig.get_path("data")) / "share" / "idif" / "configs"
    return folder if folder.is_dir() else None


def _find(path: Path) -> Path:
    """``path``; if it does not exist and reads ``configs/NAME.yaml``, the installed config of that name."""
    shipped = installed_configs()
    if path.exists() or path.is_absolute() or path.parts[:1] != ("configs",) or shipped is None:
        return path
    return shipped.joinpath(*path.parts[1:])


def load_config(source: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """One run's config, from a YAML file or from a mapping of sections.

    Args:
        source: path of a YAML file without a ``matrix``, or ``{"train": {"epochs": 10}, ...}``.
        overrides: ``KEY=VALUE`` with a dotted key and a YAML value, applied last.

    Raises:
        ConfigError: as `load_configs`, or the file names several runs.
    """
    if isinstance(source, Mapping):
        configs = resolve(source, overrides, source="config")
    else:
        configs = load_configs(Path(source), overrides)
    if len(configs) != 1:
        raise ConfigError(f"{source}: expected one run, found a matrix of {len(configs)}")
    return configs[0]


def resolve(raw: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str) -> list[Config]:
    """As `load_configs`, from a mapping already read; ``source`` names it in errors."""
    base = _rename_keys({key: value for key, value in raw.items() if key != "matrix"}, source)
    matrix = raw.get("matrix") or [{}]
    if not isinstance(matrix, list) or not all(isinstance(entry, dict) for entry in matrix):
        raise ConfigError(f"{source}: matrix: expected a list of mappings, each with a `name`")
    configs = []
    for entry in matrix:
        variant = {key: value for key, value in entry.items() if key != "name"}
        merged = _merge(base, _rename_keys(variant, source))
        for override in overrides:
            merged = _merge(merged, _rename_keys(_parse_override(override), f"--set {override}"))
        config = _validate(merged, source)
        if entry:
            if not isinstance(entry.get("name"), str):
                raise ConfigError(f"{source}: matrix: every entry needs a `name`")
            run = config.run.model_copy(update={"name": f"{config.run.name}-{entry['name']}"})
            config = config.model_copy(update={"run": run})
        configs.append(config)
    names = [config.run.name for config in configs]
    if len(set(names)) != len(names):
        raise ConfigError(f"{source}: matrix: two entries have the same name")
    return configs


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {text}: expected KEY=VALUE, e.g. train.epochs=10")
    try:
        parsed = read_yaml(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: {value!r} is not a YAML value") from None
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    assert isinstance(parsed, dict)
    return parsed


def given_keys(overrides: Sequence[str]) -> frozenset[str]:
    """The dotted keys that overrides set, e.g. ``eval.score``.

    Raises:
        ConfigError: an override is not KEY=VALUE.
    """

    def keys(value: Any, prefix: str) -> Iterator[str]:
        if isinstance(value, Mapping):
            for key, nested in value.items():
                yield from keys(nested, f"{prefix}.{key}" if prefix else str(key))
        else:
            yield prefix

    return frozenset(
        key for text in overrides for key in keys(_rename_keys(_parse_override(text), f"--set {text}"), "")
    )


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


RENAMED: dict[str, tuple[str, Mapping[Any, Any]]] = {
    "train.ranks": ("train.distribute", {"samples": "batch"}),
    "train.head_epochs": ("method.head_epochs", {}),
    "method.heads": ("method.attention_heads", {}),
    "eval.normals": ("eval.record_normal_scores", {}),
    "eval.pooled": ("eval.pool_categories", {}),
    "strategies.painter": ("strategies.inpainter", {}),
    "strategies.score_filled": ("strategies.score_imputed", {}),
}
"""Key of version 0.1 -> current key, and the renamed values; accepted for one version."""


def _validate(raw: Mapping[str, Any], source: str) -> Config:
    named = dict(raw)
    if isinstance(named.get("method"), Mapping):
        named["method"] = {"name": Config.model_fields["method"].default.name, **named["method"]}
    own = method_section(Config, named.get("method"))
    for key, wanted, value in mistyped(Config, named, {} if own is None else {"method": own}):
        raise ConfigError(f"{source}: {key}: expected {wanted}, got {value!r}")
    try:
        return Config.model_validate(named)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(named, e, source) for e in error.errors())) from None


def _rename_keys(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The same settings under the current keys."""
    result = dict(raw)
    for old, (new, values) in RENAMED.items():
        (old_section, old_key), (new_section, new_key) = old.split("."), new.split(".")
        given = result.get(old_section)
        if not isinstance(given, Mapping) or old_key not in given:
            continue
        target = result.get(new_section, {})
        if isinstance(target, Mapping) and new_key in target:
            raise ConfigError(f"{source}: {old} is the former name of {new}; give one of them")
        value = given[old_key]
        result[old_section] = {key: v for key, v in given.items() if key != old_key}
        renamed = values.get(value, value) if isinstance(value, str) else value
        result[new_section] = {**result.get(new_section, {}), new_key: renamed}
    return result


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the floats of YAML 1.2 (an unquoted ``1e-3`` is a number), and every key given once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in PyYAML, which would keep the last of equal keys."""
        first: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in first:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is given twice, in lines {first[key]} and {line}", None
                )
            first[key] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


def read_yaml(text: str) -> Any:
    """Parse a YAML text.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return yaml.load(text, Loader=_Loader)


def _explain(raw: Mapping[str, Any], error: Any, source: str) -> str:
    # pydantic inserts the union member's name after the key
    names = method_sections(Config)
    where = [str(part) for i, part in enumerate(error["loc"]) if not (i == 1 and part in names)]
    key = ".".join(where)
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        given = raw["method"].get("name")
        near = difflib.get_close_matches(str(given), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        return f"{source}: method.name: there is no method {given!r}; {hint}"
    if error["type"] == "extra_forbidden":
        own = method_section(Config, raw.get("method"))
        others = [name for name, section in names.items() if section is not own]
        is_method_key = len(where) == 2 and where[0] == "method"
        owners = [name for name in others if is_method_key and where[1] in names[name].model_fields]
        if owners and own is not None:
            name = own.model_fields["name"].default
            return f"{source}: {key!r} is a key of {', '.join(owners)}, not of the method {name}"
        known = sorted(_known_keys(where[:-1], raw))
        near = difflib.get_close_matches(where[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{source}: unknown key {key!r}; {hint}"
    message = error["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
    if error["type"] == "model_type":
        message = f"expected a mapping with keys {', '.join(sorted(_known_keys(where, raw)))}"
    if not where:
        return f"{source}: {message}"
    return f"{source}: {key}: {message}, got {error['input']!r}"


def _known_keys(where: Sequence[str], raw: Mapping[str, Any]) -> list[str]:
    section: type[BaseModel] = Config
    for part in where:
        chosen = method_section(Config, raw.get("method")) if section is Config and part == "method" else None
        section = chosen or section.model_fields[part].annotation  # type: ignore[assignment]
    keys = list(section.model_fields)
    return [*keys, "matrix"] if section is Config else keys
