"""Row numbers as short text."""

from collections.abc import Sequence


def spans_of_rows(rows: Sequence[int]) -> str:
    """Rows as text: ``row 5`` or ``rows 0-3, 7``."""
    spans: list[list[int]] = []
    for row in sorted(rows):
        if spans and row == spans[-1][1] + 1:
            spans[-1][1] = row
        else:
            spans.append([row, row])
    words = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
    return f"{'row' if len(rows) == 1 else 'rows'} {words}"
