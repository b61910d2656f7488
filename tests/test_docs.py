"""The documentation is true: references are up to date, commands, options, keys and links exist."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cli.main import app
from idif.config.loader import resolve
from idif.config.sections import Config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "cache").glob("*.md"))]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def reference() -> Any:
    spec = importlib.util.spec_from_file_location("write_reference", ROOT / "docs" / "write_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["commands", "config"])
def test_the_references_are_up_to_date(page: str) -> None:
    wanted = getattr(reference(), f"{page}_page")()
    assert (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") == wanted, "run `make docs`"


def test_every_command_and_key_is_in_the_references() -> None:
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    found = [" ".join(path) for path, _ in reference().walk(app, ("idif",))]
    assert {"idif train", "idif cache build realiad", "idif export", "idif doctor"} <= set(found)
    for path in found:
        (section,) = re.findall(rf"^## `{path}`\n(.*?)(?=^## |\Z)", commands, re.DOTALL | re.MULTILINE)
        command: Any = typer.main.get_command(app)
        for word in path.split()[1:]:
            command = command.commands[word]
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert f"| `{', '.join(parameter.opts)}` |" in section, (path, parameter.opts)
    keys = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    for section, field in Config.model_fields.items():
        assert f"## `{section}`" in keys
        for key in field.annotation.model_fields:  # type: ignore[union-attr]
            assert f"| `{key}` |" in keys or f"## `{section}.{key}`" in keys


def documented(page: Path) -> list[tuple[str, bool]]:
    """Every ``idif ...`` line of shell blocks, True; of running text, False: it may leave arguments out."""
    text = page.read_text(encoding="utf-8")
    lines: list[tuple[str, bool]] = []
    for kind, block in BLOCK.findall(text):
        if kind == "sh":
            shell = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
            lines += [(line, True) for line in shell if line.startswith("idif ")]
    prose = BLOCK.sub("", text)
    lines += [(found, False) for found in re.findall(r"`(idif [a-z][^`]*)`", prose)]
    return lines


def problem(line: str, *, whole: bool) -> str | None:
    """What is wrong with a command line; None where the command line would take it."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return None if not words and not whole else f"{line}: there is no such command"
        command = command.commands[words.pop(0)]
    try:
        context = command.make_context("idif", words)
    except Exception as error:
        if type(error).__name__ == "MissingParameter" and not whole:
            return None
        return f"{line}: {type(error).__name__}: {error}"
    for override in context.params.get("overrides") or ():
        section: Any = Config
        for key in override.partition("=")[0].split("."):
            if key not in getattr(section, "model_fields", {}):
                return f"{line}: there is no config key {key}"
            section = section.model_fields[key].annotation
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_command_line_is_one(page: Path) -> None:
    wrong = [found for line, whole in documented(page) if (found := problem(line, whole=whole))]
    assert not wrong, "\n".join(wrong)


def test_a_wrong_command_line_is_found() -> None:
    assert problem("idif eval runs/a --set train.epochs=3", whole=True) is None
    assert problem("idif fly", whole=False)
    assert problem("idif cache fly", whole=False)
    assert problem("idif eval runs/a --no-such", whole=True)
    assert problem("idif eval", whole=True)
    assert problem("idif eval", whole=False) is None
    assert problem("idif eval runs/a --set train.epoch=3", whole=True)
    assert problem("idif data synth out --size big", whole=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_examples_are_configs_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for kind, block in BLOCK.findall(text):
        if kind == "yaml":
            resolve(yaml.safe_load(block), source=page.name)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", BLOCK.sub("", text)):
        assert "://" in target or (page.parent / target).exists(), target
