"""Checks of the documentation: generated pages, commands, options, config keys, links and anchors."""

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from pydantic import BaseModel

from cli.main import complete_app
from idif.config.loader import resolve
from idif.config.sections import Config

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
    *sorted(
        page
        for room in ("benchmarks", "cache", "configs", "docs", "examples", "idif")
        for page in (ROOT / room).rglob("*.md")
    ),
]
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def module(path: str) -> Any:
    """A script of the repository as a module; its name is that of the file."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("page", ["commands", "config"])
def test_the_references_are_up_to_date(page: str) -> None:
    wanted = getattr(module("docs/write_reference.py"), f"{page}_page")()
    assert (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") == wanted, "run `make docs`"


def test_the_page_of_benchmark_results_is_up_to_date_and_holds_every_file() -> None:
    results = module("benchmarks/results_page.py")
    page = (ROOT / "benchmarks" / "results" / "README.md").read_text(encoding="utf-8")
    assert page == results.results_page(), "run `make docs`"
    assert {path.stem for path in results.RESULTS.glob("*.json")} == set(results.ORDER)


def test_every_command_and_key_is_in_the_references() -> None:
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    paths = [" ".join(path) for path, _ in module("docs/write_reference.py").walk(complete_app(), ("idif",))]
    assert {"idif train", "idif cache build realiad", "idif export", "idif doctor"} <= set(paths)
    for path in paths:
        (section,) = re.findall(rf"^## `{path}`\n(.*?)(?=^## |\Z)", commands, re.DOTALL | re.MULTILINE)
        command: Any = typer.main.get_command(complete_app())
        for word in path.split()[1:]:
            command = command.commands[word]
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert f"| `{', '.join(parameter.opts)}` |" in section, (path, parameter.opts)
    keys = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    for section, field in Config.model_fields.items():
        assert f"## `{section}`" in keys
        for model in models(field.annotation):
            for key in model.model_fields:
                assert f"| `{key}` |" in keys or f"## `{section}.{key}`" in keys


def models(annotation: Any) -> list[type[BaseModel]]:
    """The config sections that a type names: itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for member in get_args(annotation) for model in models(member)]


def test_text_after_the_examples_of_a_command_is_not_shell() -> None:
    text = "Do it.\n\nExamples:\n\n    idif a\n\n    idif b\n\nThen ``that``.\nMore."
    page = module("docs/write_reference.py")._help(text)
    assert page == "Do it.\n\n```sh\nidif a\nidif b\n```\n\nThen `that`.\nMore.\n"


def documented(page: Path) -> list[tuple[str, bool]]:
    """Every ``idif ...`` line of shell blocks, True; of running text, False: it may leave arguments out."""
    text = page.read_text(encoding="utf-8")
    lines: list[tuple[str, bool]] = []
    for kind, block in BLOCK.findall(text):
        if kind == "sh":
            shell = [without_launcher(line.strip()) for line in block.replace("\\\n", " ").splitlines()]
            lines += [(line, True) for line in shell if line.startswith("idif ")]
    prose = BLOCK.sub("", text)
    lines += [(line, False) for line in re.findall(r"`(idif [a-z][^`]*)`", prose)]
    return lines


def without_launcher(line: str) -> str:
    """The ``idif ...`` command that ``torchrun`` or variables in front of it run."""
    return re.sub(r"^(?:[A-Z_]+=\S+ )*(?:torchrun .*?--no-python )?(?=idif )", "", line)


def problem(line: str, *, complete: bool) -> str | None:
    """The reason why a command line would be refused; None if it would be accepted."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(complete_app())
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            shortened = not complete and (not words or words[0].startswith("-"))
            return None if shortened else f"{line}: there is no such command"
        command = command.commands[words.pop(0)]
    try:
        context = command.make_context("idif", words)
    except Exception as error:
        if type(error).__name__ == "MissingParameter" and not complete:
            return None
        return f"{line}: {type(error).__name__}: {error}"
    for override in context.params.get("overrides") or ():
        sections: list[type[BaseModel]] = [Config]
        for key in override.partition("=")[0].split("."):
            fields = [section.model_fields[key] for section in sections if key in section.model_fields]
            if not fields:
                return f"{line}: there is no config key {key}"
            sections = [model for field in fields for model in models(field.annotation)]
    return None


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_documented_command_line_is_one(page: Path) -> None:
    problems = [p for line, complete in documented(page) if (p := problem(line, complete=complete))]
    assert not problems, "\n".join(problems)


def test_a_wrong_command_line_is_found() -> None:
    assert problem("idif eval runs/a --set train.epochs=3", complete=True) is None
    assert problem("idif fly", complete=False)
    assert problem("idif cache fly", complete=False)
    assert problem("idif eval runs/a --no-such", complete=True)
    assert problem("idif eval", complete=True)
    assert problem("idif eval", complete=False) is None
    assert problem("idif eval runs/a --set train.epoch=3", complete=True)
    assert problem("idif data synth out --size big", complete=True)
    launched = without_launcher("torchrun --nproc-per-node 4 --no-python idif eval runs/a --no-such")
    assert problem(launched, complete=True)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_yaml_examples_are_configs_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for kind, block in BLOCK.findall(text):
        if kind == "yaml":
            resolve(yaml.safe_load(block), source=page.name)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", BLOCK.sub("", text)):
        if "://" in target:
            continue
        linked = page.parent / target if target else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"


def test_no_page_is_left_out() -> None:
    """Every Markdown file of the repository is checked; without git, as in an archive, there is no list."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git repository here to list the Markdown files")
    assert set(listed) <= set(IDS)
