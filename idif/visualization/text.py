"""Numbers and sentences as terminals, reports and web pages show them; untrusted texts made harmless."""

import json
import re
from typing import Any

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that move the cursor, color, ring, turn the direction of writing or cannot be written; newline
and tab are none of them."""
_FORMULA = ("=", "+", "-", "@", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters by which spreadsheets recognize a formula, full-width forms included."""
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "{}$&#%_"},
    **{char: f"{{{char}}}" for char in "[]*\"`'<>"},
}
"""``[`` and ``*`` after a line's end would belong to it; the last make ligatures or quotes."""
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&$])")


def percent(value: float | None, undefined: str = "-") -> str:
    """A fraction in percent: 0.9713 -> 97.1; ``undefined`` where there is none."""
    return undefined if value is None else f"{100 * value:.1f}"


def with_percent_sign(value: float | None) -> str:
    """A fraction in percent, with the sign: 0.9713 -> ``97.1 %``; a dash where there is none."""
    return "-" if value is None else f"{percent(value)} %"


def as_sentence(text: str) -> str:
    """``text`` with a capital first letter and one full stop at its end."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def printable(text: str) -> str:
    """``text`` for a terminal: every control character but newline and tab becomes a question mark."""
    return _CONTROL.sub("?", text)


def json_line(value: Any, *, ascii_only: bool = False) -> str:
    """``value`` as one line of JSON in which control characters are escaped, those above ASCII included.

    Args:
        ascii_only: escape every character above ASCII.

    Raises:
        ValueError: NaN or infinity, which are not JSON.
    """
    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def csv_text(text: str) -> str:
    """``text`` as a cell of a table, escaped where a spreadsheet would run it as a formula."""
    plain = printable(text)
    return f"'{plain}" if plain.lstrip().startswith(_FORMULA) or text[:1] in ("\t", "\r", "\n") else plain


def latex_text(text: str) -> str:
    """``text`` in which LaTeX finds no command, on one line."""
    return "".join(_LATEX.get(char, char) for char in " ".join(printable(text).split()))


def markdown_text(text: str) -> str:
    """``text`` as a cell of a Markdown table, without markup, links or HTML."""
    return _MARKDOWN.sub(r"\\\1", " ".join(printable(text).split()))
