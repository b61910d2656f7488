"""Reads a config from YAML that holds only what differs from the defaults; one file may name several runs.

An unknown key is an error that names the nearest known one.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from idif.config.sections import Config
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
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: config cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected sections such as `data:` and `train:`, got {type(raw).__name__}")
    return resolve(raw, overrides, source=str(path))


def resolve(raw: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str) -> list[Config]:
    """As `load_configs`, from a mapping already read; ``source`` names it in errors."""
    base = {key: value for key, value in raw.items() if key != "matrix"}
    matrix = raw.get("matrix") or [{}]
    if not isinstance(matrix, list) or not all(isinstance(entry, dict) for entry in matrix):
        raise ConfigError(f"{source}: matrix: expected a list of mappings, each with a `name`")
    configs = []
    for entry in matrix:
        variant = {key: value for key, value in entry.items() if key != "name"}
        merged = _merge(base, variant)
        for override in overrides:
            merged = _merge(merged, _parse_override(override))
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
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: {value!r} is not a YAML value") from None
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    assert isinstance(parsed, dict)
    return parsed


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


def _validate(raw: Mapping[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(_whole_floats(raw))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(raw, e, source) for e in error.errors())) from None


def _whole_floats(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text, which every author of a learning rate means as a number."""
    if isinstance(value, Mapping):
        return {key: _whole_floats(below) for key, below in value.items()}
    if isinstance(value, str) and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _explain(raw: Mapping[str, Any], error: Any, source: str) -> str:
    where = [str(part) for part in error["loc"]]
    key = ".".join(where)
    if error["type"] == "extra_forbidden":
        known = sorted(_known_keys(where[:-1]))
        near = difflib.get_close_matches(where[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{source}: unknown key {key!r}; {hint}"
    message = error["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
    if error["type"] == "model_type":
        message = f"expected a mapping with keys {', '.join(sorted(_known_keys(where)))}"
    if not where:
        return f"{source}: {message}"
    return f"{source}: {key}: {message}, got {error['input']!r}"


def _known_keys(where: Sequence[str]) -> list[str]:
    section: type[BaseModel] = Config
    for part in where:
        section = section.model_fields[part].annotation  # type: ignore[assignment]
    keys = list(section.model_fields)
    return [*keys, "matrix"] if section is Config else keys
