"""Writes `docs/commands.md` from the command line and `docs/config.md` from the config's types.

python docs/write_reference.py
"""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo

from cli.main import app
from idif.config.sections import Config

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/write_reference.py (`make docs`); change the code, not this file. -->\n"


def commands_page() -> str:
    """Every command with its help, arguments and options."""
    lines = [
        "# Commands\n",
        NOTE,
        "Every command has `--help`. Exit codes: 0 done; 1 a check found something wrong, or a store is",
        "damaged or incomplete; 2 a mistake in what was asked; 3 it could not be finished; 130 and 143",
        "interrupted.\n",
    ]
    for path, function in walk(app, ("idif",)):
        parameters = [Parameter(name, p) for name, p in inspect.signature(function).parameters.items()]
        arguments = [p for p in parameters if isinstance(p.told, ArgumentInfo)]
        options = [p for p in parameters if isinstance(p.told, OptionInfo)]
        usage = " ".join((*path, *(p.word for p in arguments), "[OPTIONS]"))
        lines += [
            f"## `{' '.join(path)}`\n",
            _help(inspect.getdoc(function) or ""),
            f"```text\n{usage}\n```\n",
        ]
        if arguments:
            lines += ["| argument | meaning |", "|---|---|"]
            lines += [f"| `{p.word}` | {_cell(p.told.help or '')} |" for p in arguments] + [""]
        if options:
            lines += ["| option | takes | default | meaning |", "|---|---|---|---|"]
            lines += [
                f"| `{p.flag}` | {p.takes} | {p.default} | {_cell(p.told.help or '')} |" for p in options
            ]
            lines.append("")
    return "\n".join(lines)


def walk(below: typer.Typer, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    """Every command's function, with the words that call it."""
    for command in below.registered_commands:
        assert command.callback is not None
        yield (*path, command.name or command.callback.__name__), command.callback
    for group in below.registered_groups:
        assert group.typer_instance is not None
        assert group.name is not None
        yield from walk(group.typer_instance, (*path, group.name))


class Parameter:
    """An argument or option, from the function's signature."""

    def __init__(self, name: str, parameter: inspect.Parameter) -> None:
        self.name = name
        self.type, self.told = get_args(parameter.annotation)[:2]
        self.needed = parameter.default is inspect.Parameter.empty
        self.value = None if self.needed else parameter.default

    @property
    def word(self) -> str:
        """An argument's place in the usage."""
        word: str = self.told.metavar or self.name.upper()
        return word if self.needed else f"[{word}]"

    @property
    def flag(self) -> str:
        """An option's names."""
        # inside Annotated, typer takes the first name for what would be the default outside
        names = [
            name for name in (self.told.default, *(self.told.param_decls or ())) if isinstance(name, str)
        ]
        return ", ".join(names or [f"--{self.name.replace('_', '-')}"])

    @property
    def takes(self) -> str:
        """What an option's value is; nothing for a switch."""
        kinds = [kind for kind in (get_args(self.type) or (self.type,)) if kind is not type(None)]
        many = ", repeatable" if get_origin(self.type) is list else ""
        if get_origin(self.type) is Literal:
            return ", ".join(f"`{kind}`" for kind in kinds)
        if kinds == [bool]:
            return ""
        words = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}
        return f"`{self.told.metavar or words[kinds[0]]}`{many}"

    @property
    def default(self) -> str:
        """An option's default; nothing where that is to do nothing."""
        if self.needed:
            return "needed"
        if self.value is None or self.value is False or self.value == []:
            return ""
        return f"`{self.value.as_posix() if isinstance(self.value, Path) else self.value}`"


def _help(text: str) -> str:
    """The docstring, its example lines as one block of shell."""
    found = re.split(r"\n\nExamples?:\n", text.replace("``", "`"))
    if len(found) == 1:
        return found[0] + "\n"
    examples = [line.strip() for line in found[1].splitlines() if line.strip()]
    return "\n".join([found[0], "", "```sh", *examples, "```", ""])


def config_page() -> str:
    """Every config key with its type, default and meaning."""
    schema = Config.model_json_schema()
    lines = [
        "# Config\n",
        NOTE,
        "A config is YAML that holds only what differs from these defaults. An unknown key is an error. On",
        "the command line `--set section.key=VALUE` overrides one, with VALUE in YAML. `matrix:`, a list of",
        "mappings with a `name` each, turns one file into several runs.\n",
    ]
    for name, value in schema["properties"].items():
        lines += _section(name, schema["$defs"][_reference(value)], schema["$defs"])
    return "\n".join(lines)


def _section(path: str, section: dict[str, Any], known: dict[str, Any]) -> list[str]:
    lines = [f"## `{path}`\n", _cell(section["description"]) + "\n"]
    lines += ["| key | takes | default | meaning |", "|---|---|---|---|"]
    below: list[str] = []
    for key, value in section["properties"].items():
        reference = _reference(value)
        if reference is not None:
            below += _section(f"{path}.{key}", known[reference], known)
            continue
        default = value.get("default")
        shown = "" if default is None or default == "" else f"`{_yaml(default)}`"
        lines.append(f"| `{key}` | {_cell(_kind(value))} | {shown} | {_cell(value.get('description', ''))} |")
    return [*lines, "", *below]


def _reference(value: dict[str, Any]) -> str | None:
    found: str | None = value.get("$ref")
    return None if found is None else found.rsplit("/", 1)[1]


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return str(value)


def _kind(value: dict[str, Any]) -> str:
    """A type of JSON Schema in words."""
    if "anyOf" in value:
        return " or ".join(_kind(one) for one in value["anyOf"] if one.get("type") != "null")
    if "enum" in value or "const" in value:
        return ", ".join(f"`{one}`" for one in value.get("enum", [value.get("const")]))
    if value["type"] == "array":
        members = value.get("prefixItems")
        return f"list of {len(members)} numbers" if members else f"list: {_kind(value['items'])}"
    if value["type"] == "object":
        return f"mapping: {_kind(value['additionalProperties'])} each"
    words = {"boolean": "`true` or `false`", "integer": "whole number", "number": "number", "string": "text"}
    word = "path" if value.get("format") == "path" else words[value["type"]]
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {value[name]:g}" for name, sign in bounds.items() if name in value]
    if "multipleOf" in value:
        told.append(f"multiple of {value['multipleOf']:g}")
    return " ".join([word, ", ".join(told)]).strip()


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


if __name__ == "__main__":
    for file, page in (("commands.md", commands_page()), ("config.md", config_page())):
        (HERE / file).write_text(page, encoding="utf-8", newline="\n")
