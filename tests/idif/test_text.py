"""Names from files in terminals, tables and exports: no command, formula, link or control code survives."""

import csv
import io
import json

import pytest
from rich.table import Table

from cli.terminal.console import _SafeConsole
from idif.report.table_export import compare, to_csv, to_latex, to_markdown
from idif.visualization.text import csv_text, json_line, latex_text, markdown_text, printable

ATTACKS = {
    "[1in]cup": "{[}1in{]}cup",
    r"\input{/etc/passwd}": r"\textbackslash{}input\{/etc/passwd\}",
    "a & b % c # d $ e _ f": r"a \& b \% c \# d \$ e \_ f",
    "x^2~y": r"x\textasciicircum{}2\textasciitilde{}y",
    "two\nlines": "two lines",
    "\x1b[2J": "?{[}2J",
}


@pytest.mark.parametrize("text", ATTACKS)
def test_latex_finds_no_command(text: str) -> None:
    assert latex_text(text) == ATTACKS[text]


@pytest.mark.parametrize("text", ["=1+1", " =1+1", "\t=1", "\n@x", "-2", "+3", "\u00a0=1", "\uff1d1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert csv_text(text).startswith("'")
    assert csv_text("cup") == "cup"


def test_a_markdown_cell_stays_a_cell() -> None:
    assert markdown_text("a|b\n[x](y) <b> `c` *d*") == r"a\|b \[x\](y) \<b\> \`c\` \*d\*"


def test_the_exports_escape_names() -> None:
    name = " =cmd|' /C calc'!A1 & \\input{x}\x1b[31m"
    values = dict.fromkeys(("s_auroc", "i_auroc", "p_auroc", "p_ap", "aupro"), 0.5)
    metrics = {"categories": {name: values}, "mean": values}
    (_, row) = csv.reader(io.StringIO(to_csv(compare(metrics))))
    assert row[0].startswith("'")
    assert r"\input" not in to_latex(compare(metrics))
    assert "&" in to_latex(compare(metrics))
    assert to_latex(compare(metrics)).count(r"\&") == 1
    line = to_markdown(compare(metrics)).splitlines()[2]
    assert line.replace(r"\|", "").count("|") == to_markdown(compare(metrics)).splitlines()[0].count("|")
    for text in (to_csv(compare(metrics)), to_latex(compare(metrics)), to_markdown(compare(metrics))):
        assert "\x1b" not in text


def test_terminals_get_no_control_characters() -> None:
    file = io.StringIO()
    console = _SafeConsole(file=file, force_terminal=True, color_system="truecolor", highlight=False)
    table = Table("name")
    table.add_row("\x1b]0;title\x07\x9b31m\u202ecup\r")
    console.print(table)
    console.print("[bold]own[/] \x1b[2J")
    printed = file.getvalue()
    assert "\x1b[1m" in printed, "its own colors stay"
    for text in ("\x1b]0", "\x07", "\x9b", "\u202e", "\r", "\x1b[2J"):
        assert text not in printed
    assert printable("a\tb\nc") == "a\tb\nc"


def test_json_is_one_line_of_harmless_characters() -> None:
    value = {"name": "a\x1b\x7f\x9b\u2028\u202e\ud800\u00e9"}
    line = json_line(value)
    assert json.loads(line) == value
    assert line.rstrip("\n").isprintable()
    assert "\u00e9" in line
