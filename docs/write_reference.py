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

from cli.main import complete_app
from idif.config.sections import Config

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/write_reference.py (`make docs`); change the code, not this file. -->\n"


def commands_page() -> str:
    """Every command with its help, arguments and options."""
    lines = [
        "# Commands\n",
        NOTE,
        "Every command has `--help`. Exit codes: 0 done; 1 a check found something wrong, or a store is",
        "damaged or incomplete; 2 a wrong option, config, path or dataset; 3 the work could not be finished",
        "(space, memory, a loss that is not finite); 130 interrupted by Ctrl-C; 143 terminated.\n",
    ]
    for path, function in walk(complete_app(), ("idif",)):
        parameters = [Parameter(name, p) for name, p in inspect.signature(function).parameters.items()]
        arguments = [p for p in parameters if isinstance(p.info, ArgumentInfo)]
        options = [p for p in parameters if isinstance(p.info, OptionInfo)]
        usage = " ".join((*path, *(p.word for p in arguments), "[OPTIONS]"))
        lines += [
            f"## `{' '.join(path)}`\n",
            _help(inspect.getdoc(function) or ""),
            f"```text\n{usage}\n```\n",
        ]
        if arguments:
            lines += ["| argument | meaning |", "|---|---|"]
            lines += [f"| `{p.word}` | {_cell(p.info.help or '')} |" for p in arguments] + [""]
        if options:
            lines += ["| option | takes | default | meaning |", "|---|---|---|---|"]
            lines += [
                f"| `{p.flag}` | {p.takes} | {p.default} | {_cell(p.info.help or '')} |" for p in options
            ]
            lines.append("")
    return "\n".join(lines)


def walk(group: typer.Typer, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    """Every command's words and function, those of subgroups included."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield (*path, command.name or command.callback.__name__), command.callback
    for subgroup in group.registered_groups:
        assert subgroup.typer_instance is not None
        assert subgroup.name is not None
        yield from walk(subgroup.typer_instance, (*path, subgroup.name))


class Parameter:
    """An argument or option, from the function's signature."""

    def __init__(self, name: str, parameter: inspect.Parameter) -> None:
        self.name = name
        self.type, self.info = get_args(parameter.annotation)[:2]
        self.required = parameter.default is inspect.Parameter.empty
        self.value = None if self.required else parameter.default

    @property
    def word(self) -> str:
        """The argument's name in the usage line; in brackets if optional."""
        word: str = self.info.metavar or self.name.upper()
        return word if self.required else f"[{word}]"

    @property
    def flag(self) -> str:
        """The option's names, separated by commas."""
        # inside Annotated, typer takes the first name for what would be the default outside
        names = [
            name for name in (self.info.default, *(self.info.param_decls or ())) if isinstance(name, str)
        ]
        return ", ".join(names or [f"--{self.name.replace('_', '-')}"]).partition("/")[0]

    @property
    def takes(self) -> str:
        """The kind of value that the option takes; empty for a switch."""
        kinds = [kind for kind in (get_args(self.type) or (self.type,)) if kind is not type(None)]
        many = ", repeatable" if get_origin(self.type) is list else ""
        for kind in (self.type, *kinds):
            if get_origin(kind) is Literal:
                return ", ".join(f"`{value}`" for value in get_args(kind))
        if kinds == [bool]:
            _, _, opposite = str(self.info.default).partition("/")
            return f"or `{opposite}`" if opposite else ""
        words = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}
        return f"`{self.info.metavar or words[kinds[0]]}`{many}"

    @property
    def default(self) -> str:
        """The option's default; empty if it is None, false or an empty list."""
        if self.required:
            return "required"
        if self.value is None or self.value is False or self.value == []:
            return ""
        return f"`{self.value.as_posix() if isinstance(self.value, Path) else self.value}`"


def _help(text: str) -> str:
    """The docstring as Markdown: the indented lines after ``Examples:`` become one block of shell.

    Text that follows the examples without indentation is a paragraph after the block.
    """
    head, *rest = re.split(r"\n\nExamples?:\n", text.replace("``", "`"), maxsplit=1)
    if not rest:
        return head + "\n"
    lines = rest[0].splitlines()
    end = next((i for i, line in enumerate(lines) if line and not line[0].isspace()), len(lines))
    examples = [line.strip() for line in lines[:end] if line.strip()]
    paragraph = "\n".join(lines[end:]).strip()
    return "\n".join([head, "", "```sh", *examples, "```", *(["", paragraph] if paragraph else []), ""])


def config_page() -> str:
    """Every config key with its type, default and meaning."""
    schema = Config.model_json_schema()
    lines = [
        "# Config\n",
        NOTE,
        "A config is a YAML file with only the values that differ from these defaults. An unknown key is an",
        "error. On the command line `--set section.key=VALUE` overrides one key, with VALUE in YAML.",
        "`matrix:`, a list of mappings with a `name` each, turns one file into several runs.\n",
    ]
    for name, value in schema["properties"].items():
        lines += _sections(name, value, schema["$defs"])
    return "\n".join(lines)


def _sections(path: str, value: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """The section at ``path``; of a union told apart by a key, a heading and a section for each member."""
    members = value.get("discriminator", {}).get("mapping")
    if members is None:
        return _section(path, f"`{path}`", definitions[_reference(value) or ""], definitions)
    key = value["discriminator"]["propertyName"]
    lines = [f"## `{path}`\n", f"One of the following, told apart by `{key}`.\n"]
    for name, member in members.items():
        section = definitions[member.rsplit("/", 1)[1]]
        lines += _section(path, f"`{path}` with `{key}: {name}`", section, definitions)
    return lines


def _section(path: str, title: str, section: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    lines = [f"## {title}\n", _cell(section["description"]) + "\n"]
    lines += ["| key | takes | default | meaning |", "|---|---|---|---|"]
    subsections: list[str] = []
    for key, value in section["properties"].items():
        if _reference(value) is not None or "discriminator" in value:
            subsections += _sections(f"{path}.{key}", value, definitions)
            continue
        members = value.get("items", {})
        if _reference(members) is not None:
            subsections += _sections(f"{path}.{key}[]", members, definitions)
        default = value.get("default")
        shown = "" if default is None or default == "" else f"`{_yaml(default)}`"
        lines.append(f"| `{key}` | {_cell(_kind(value))} | {shown} | {_cell(value.get('description', ''))} |")
    return [*lines, "", *subsections]


def _reference(value: dict[str, Any]) -> str | None:
    reference: str | None = value.get("$ref")
    return None if reference is None else reference.rsplit("/", 1)[1]


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return str(value)


def _kind(value: dict[str, Any]) -> str:
    """A JSON Schema type as a phrase."""
    if "anyOf" in value:
        return " or ".join(_kind(one) for one in value["anyOf"] if one.get("type") != "null")
    if "enum" in value or "const" in value:
        return ", ".join(f"`{one}`" for one in value.get("enum", [value.get("const")]))
    if _reference(value) is not None:
        return "mapping"
    if value["type"] == "array":
        members = value.get("prefixItems")
        return f"list of {len(members)} numbers" if members else f"list: {_kind(value['items'])}"
    if value["type"] == "object":
        return f"mapping: {_kind(value['additionalProperties'])} each"
    words = {"boolean": "`true` or `false`", "integer": "whole number", "number": "number", "string": "text"}
    word = "path" if value.get("format") == "path" else words[value["type"]]
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[name]:g}" for name, sign in bounds.items() if name in value]
    if "multipleOf" in value:
        limits.append(f"multiple of {value['multipleOf']:g}")
    return " ".join([word, ", ".join(limits)]).strip()


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


if __name__ == "__main__":
    for file, page in (("commands.md", commands_page()), ("config.md", config_page())):
        (HERE / file).write_text(page, encoding="utf-8", newline="\n")
