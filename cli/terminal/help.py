"""Help pages: usage, description, arguments, options, and examples that can be copied from any terminal."""

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, get_args

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from cli.terminal.console import out

LONGEST_LINE = 100
"""Columns that a page has at most."""
TERM_WIDTH = 28
"""Columns of an option and its value; a longer one has a line of its own."""
INDENT = 2

Parameter = Any
"""An argument or option; its class is typer's own and differs between typer's versions."""
Context = Any
Function = TypeVar("Function", bound=Callable[..., Any])


class HelpCommand(TyperCommand):
    """A command whose help is a page of this module."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **settings)
        for parameter in self.params:
            if parameter.param_type_name == "argument":  # messages name it as the help does
                parameter.metavar = argument_name(parameter)

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """The words after the command's name."""
        return usage_words(self.get_params(ctx))

    def format_help(self, ctx: Context, formatter: Any) -> None:
        """Print the page."""
        print_page(self, ctx)


class HelpGroup(TyperGroup):
    """A group of commands whose help is a page of this module."""

    def format_help(self, ctx: Context, formatter: Any) -> None:
        """Print the page."""
        print_page(self, ctx)


class CommandGroup(typer.Typer):
    """A `typer.Typer` whose commands and own help are pages of this module."""

    def __init__(self, *, cls: type[TyperGroup] = HelpGroup, **settings: Any) -> None:
        super().__init__(cls=cls, **settings)

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = HelpCommand, **settings: Any
    ) -> Callable[[Function], Function]:
        """See `typer.Typer.command`."""
        decorate: Callable[[Function], Function] = super().command(name, cls=cls, **settings)
        return decorate


def print_page(command: Any, ctx: Context) -> None:
    """Print the help of a command or group."""
    width = min(out.width, LONGEST_LINE)
    for line in page(command, ctx, width):
        out.print(line, soft_wrap=True)


def page(command: Any, ctx: Context, width: int) -> Iterator[Text]:
    """The lines of a page, none longer than ``width`` where its words allow it."""
    usage = f"Usage: {ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}"
    yield from _wrapped(usage, width, style="bold")
    description, examples = split_examples(command.help or "")
    for paragraph in description:
        yield Text()
        yield from _wrapped(paragraph, width)
    parameters = [p for p in command.get_params(ctx) if not getattr(p, "hidden", False)]
    sections = {
        "Arguments": [
            (argument_name(p), explanation(p)) for p in parameters if p.param_type_name == "argument"
        ],
        "Options": [(option_name(p), explanation(p)) for p in parameters if p.param_type_name == "option"],
        "Commands": [
            (name, split_examples(each.help or "")[0][0])
            for name in (command.list_commands(ctx) if isinstance(command, TyperGroup) else ())
            if not (each := command.get_command(ctx, name)).hidden
        ],
    }
    for heading, rows in sections.items():
        if rows:
            yield Text()
            yield Text(f"{heading}:", style="bold")
            yield from _rows(rows, width)
    if examples:
        yield Text()
        yield Text("Examples:" if len(examples) > 1 else "Example:", style="bold")
        for example in examples:
            yield from map(Text, shell_lines(example, width))


def split_examples(text: str) -> tuple[list[str], list[str]]:
    """The paragraphs of a docstring, each on one line, and its examples, each a command line."""
    paragraphs: list[str] = []
    examples: list[str] = []
    inside = False
    for block in re.split(r"\n\s*\n", text.strip()):
        indented = block[:1].isspace()
        if re.fullmatch(r"Examples?:", block.strip()):
            inside = True
        elif inside and indented:
            examples.append(" ".join(block.split()))
        else:
            paragraphs.append(_plain(block))
    return paragraphs or [""], examples


def shell_lines(command: str, width: int) -> list[str]:
    r"""A command line in lines of at most ``width`` columns, joined by ``\`` so that a shell runs their copy.

    Words in quotes are not broken; a word that is longer than a line has a line of its own.
    """
    words = re.findall(r"(?:'[^']*'|\"[^\"]*\"|\S)+", command)
    # an option stays with its value
    pieces = [words[0]]
    for word in words[1:]:
        if word.startswith("-") or not pieces[-1].startswith("--") or " " in pieces[-1]:
            pieces.append(word)
        else:
            pieces[-1] += f" {word}"
    lines = [" " * INDENT + pieces[0]]
    for number, piece in enumerate(pieces[1:], start=2):
        room = width - (0 if number == len(pieces) else len(" \\"))
        if len(lines[-1]) + 1 + len(piece) <= room:
            lines[-1] += f" {piece}"
        else:
            lines[-1] += " \\"
            lines.append(" " * (INDENT + 4) + piece)
    return lines


def usage_words(parameters: Sequence[Parameter]) -> list[str]:
    """``[OPTIONS]`` and the arguments, optional ones in brackets."""
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    names = [argument_name(p) for p in arguments]
    return [
        "[OPTIONS]",
        *(name if p.required else f"[{name}]" for p, name in zip(arguments, names, strict=True)),
    ]


def argument_name(parameter: Parameter) -> str:
    """The name of an argument in capitals, with dots where there may be several."""
    name: str = parameter.metavar or parameter.name.upper()
    return name if parameter.nargs == 1 or name.endswith("...") else f"{name}..."


def option_name(parameter: Parameter) -> str:
    """An option's names and, unless it is a switch, the kind of its value."""
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.secondary_opts:
        return " / ".join([names, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {value_name(parameter)}"


def value_name(parameter: Parameter) -> str:
    """The kind of an option's value: its metavar, its choices, or a word in capitals."""
    if parameter.metavar is not None:
        return str(parameter.metavar)
    kind = parameter.type_descriptor
    if kind.is_choice:
        return "|".join(map(str, kind.choices))
    if kind.is_path:
        return "PATH"
    kinds = {kind.annotation, *get_args(kind.annotation)}
    return "NUMBER" if kind.is_ranged or kinds & {int, float} else "TEXT"


def explanation(parameter: Parameter) -> str:
    """The help of a parameter, with its range, default and environment variable."""
    remarks = [_range(parameter), f"environment: {parameter.envvar}" if parameter.envvar else ""]
    remarks.append("required" if parameter.required else _default(parameter))
    text, said = _plain(parameter.help or ""), "; ".join(filter(None, remarks))
    return f"{text} [{said}]" if said else text


def _range(parameter: Parameter) -> str:
    least, most = getattr(parameter, "min", None), getattr(parameter, "max", None)
    if most is None:
        return "" if least is None else f"at least {least}"
    return f"at most {most}" if least is None else f"{least} to {most}"


def _default(parameter: Parameter) -> str:
    value, shown = parameter.default, parameter.show_default
    if isinstance(shown, str):
        return f"default: {shown}"
    if not shown or value is None or value is False or value in ((), [], ""):
        return ""
    if value is True:
        return f"default: {parameter.opts[0]}"
    return f"default: {value}"


def _plain(text: str) -> str:
    """A text of a docstring on one line, without the marks of code."""
    return " ".join(text.replace("`", "").split())


def _rows(rows: Sequence[tuple[str, str]], width: int) -> Iterator[Text]:
    """Two columns; the second begins where the longest of the ordinary terms ends."""
    ordinary = [len(term) for term, _ in rows if len(term) <= TERM_WIDTH]
    left = INDENT + max(ordinary, default=TERM_WIDTH) + 2
    for term, meaning in rows:
        lines = textwrap.wrap(meaning, width - left, break_on_hyphens=False, break_long_words=False) or [""]
        if INDENT + len(term) + 2 > left:
            yield Text(" " * INDENT + term, style="cyan")
        else:
            first = Text(" " * INDENT + term.ljust(left - INDENT), style="cyan")
            yield first.append(lines.pop(0), style="not bold default")
        yield from (Text(" " * left + line) for line in lines)


def _wrapped(text: str, width: int, style: str = "") -> Iterator[Text]:
    for line in textwrap.wrap(text, width, subsequent_indent="", break_on_hyphens=False):
        yield Text(line, style=style)
