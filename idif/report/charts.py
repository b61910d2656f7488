"""Charts as inline SVG, colored by the page's style sheet, so that they follow its dark and light mode.

No plotting library: a chart must use the page's colors, scale with the page and hold its values as text.
Every chart is 360 units wide, so that its text stays readable on a phone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH = 360.0
HEIGHT = 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 10.0, 24.0, 38.0

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis of a chart; a tick is (value, text)."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Position of ``value`` between the ends, 0..1, clipped."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return min(max((value - low) / (high - low), 0.0), 1.0)


def linear_axis(
    label: str, low: float, high: float, *, ticks: int = 5, text: Callable[[float], str] = "{:g}".format
) -> Axis:
    """A linear axis from ``low`` to ``high`` with about ``ticks`` round tick values."""
    if not high > low:
        low, high = low - 0.5, low + 0.5
    rough = (high - low) / max(1, ticks)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return Axis(label, low, high, tuple((value, text(value)) for value in values))


def log_axis(label: str, low: float, high: float) -> Axis:
    """A logarithmic axis of whole decades around ``low`` .. ``high``, both above zero."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    step = max(1, round((last - first) / 5))
    ticks = tuple((10.0**k, f"{10.0**k:g}" if -4 < k < 5 else f"1e{k}") for k in range(first, last + 1, step))
    return Axis(label, 10.0**first, 10.0**last, ticks, log=True)


def category_axis(label: str, names: Sequence[str]) -> Axis:
    """An axis with one tick per name, at 0, 1, 2, ..."""
    ticks = tuple((float(position), name) for position, name in enumerate(names))
    return Axis(label, -0.6, len(names) - 0.4, ticks)


@dataclass(frozen=True)
class Line:
    """One line of a chart; ``style`` is a class of the style sheet (color and dashes)."""

    name: str
    points: Sequence[Point]
    style: str
    dots: Sequence[str] = field(default=())
    """Tooltip of each point; empty draws no dots."""
    band: Sequence[Point] = field(default=())
    """(low, high) of each point's interval, drawn behind the line; empty draws no band."""


def line_chart(
    lines: Sequence[Line], x: Axis, y: Axis, alt: str, *, chance: bool = False, mark: float | None = None
) -> Markup:
    """Lines on a grid; ``chance`` adds the diagonal of a ROC chart, ``mark`` a dashed vertical line."""
    ends = _place(x, y, (x.low, y.low)), _place(x, y, (x.high, y.high))
    body = [_segment("chance", *ends)] if chance else []
    if mark is not None:
        body.append(_segment("mark", _place(x, y, (mark, y.low)), _place(x, y, (mark, y.high))))
    for line in lines:
        if line.band:
            positions = [point[0] for point in line.points]
            edge = [(a, low) for a, (low, _) in zip(positions, line.band, strict=True)]
            edge += [(a, high) for a, (_, high) in zip(positions, line.band, strict=True)][::-1]
            outline = _points([_place(x, y, point) for point in edge])
            body.append(Markup('<polygon class="band {}" points="{}"/>').format(line.style, outline))
    for line in lines:
        corners = [_place(x, y, point) for point in line.points]
        body.append(Markup('<polyline class="line {}" points="{}"/>').format(line.style, _points(corners)))
        for (cx, cy), text in zip(corners, line.dots, strict=False):
            dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>')
            body.append(dot.format(line.style, cx, cy, text))
    return _frame(x, y, alt, Markup("").join(body))


def mirrored_bars(
    above: Sequence[float],
    below: Sequence[float],
    edges: Sequence[float],
    label: str,
    alt: str,
    tips: tuple[Sequence[str], Sequence[str]],
    mark: float | None = None,
) -> Markup:
    """Two histograms on one axis, one upwards and one downwards, so that neither hides the other.

    Args:
        above, below: [K] heights of the bars, on one scale.
        edges: [K+1] edges of the bins.
        label: label of the horizontal axis.
        alt: text alternative of the chart.
        tips: tooltips of the bars above and below.
        mark: position of a dashed vertical line.
    """
    top = max([*above, *below, 1e-9]) * 1.05
    x = linear_axis(label, edges[0], edges[-1], text="{:.3g}".format)
    # five ticks leave at least one on each side of zero
    y = linear_axis("share of samples, %", -top, top, ticks=5, text=lambda value: f"{abs(value):g}")
    body = []
    for heights, texts, sign, style in ((above, tips[0], 1, "normal"), (below, tips[1], -1, "anomalous")):
        for bin_index, height in enumerate(heights):
            if height:
                a, end = _place(x, y, (edges[bin_index], sign * height))
                b, base = _place(x, y, (edges[bin_index + 1], 0))
                bar = Markup(
                    '<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                    "<title>{}</title></rect>"
                )
                size = (max(b - a - 1, 0.5), abs(end - base))
                body.append(bar.format(style, a + 0.5, min(end, base), *size, texts[bin_index]))
    zero = _segment("axis", _place(x, y, (x.low, 0)), _place(x, y, (x.high, 0)))
    if mark is not None:
        body.append(_segment("mark", _place(x, y, (mark, y.low)), _place(x, y, (mark, y.high))))
    return _frame(x, y, alt, Markup("").join([*body, zero]))


def bar_chart(
    names: Sequence[str], values: Sequence[float], texts: Sequence[str], y: Axis, alt: str
) -> Markup:
    """One bar per name, from zero, with its text at the end."""
    x = category_axis("", names)
    body = []
    for position, (value, text) in enumerate(zip(values, texts, strict=True)):
        (a, end), (b, base) = _place(x, y, (position - 0.32, value)), _place(x, y, (position + 0.32, 0))
        bar = Markup('<rect class="bar c1" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
        body.append(bar.format(a, min(end, base), b - a, abs(end - base)))
        baseline = end - 5 if value >= 0 else end + 12
        body.append(_text("value", (a + b) / 2, baseline, text, "middle"))
    zero = _segment("axis", _place(x, y, (x.low, 0)), _place(x, y, (x.high, 0)))
    return _frame(x, y, alt, Markup("").join([*body, zero]))


@dataclass(frozen=True)
class Interval:
    """One row of `interval_chart`."""

    name: str
    value: float
    low: float | None
    high: float | None
    reference: float | None
    text: str


def interval_chart(rows: Sequence[Interval], x: Axis, alt: str) -> Markup:
    """One row per name: a dot, its interval and, where given, a hollow mark for the reference value."""
    row_height, left, top = 20.0, 122.0, 12.0
    height = top + row_height * len(rows) + 36
    bottom = height - 36

    def horizontal(value: float) -> float:
        return left + x.share(value) * (WIDTH - _RIGHT - left)

    body = []
    for value, text in x.ticks:
        body.append(_segment("grid", (horizontal(value), top), (horizontal(value), bottom)))
        body.append(_text("tick", horizontal(value), bottom + 14, text, "middle"))
    for number, row in enumerate(rows):
        middle = top + row_height * (number + 0.5)
        name = row.name if len(row.name) <= 18 else row.name[:17] + "…"
        body.append(_text("name", left - 8, middle + 4, name, "end"))
        if row.low is not None and row.high is not None:
            body.append(_segment("whisker", (horizontal(row.low), middle), (horizontal(row.high), middle)))
        if row.reference is not None:
            a = horizontal(row.reference)
            corners = ((a, middle - 5), (a + 5, middle), (a, middle + 5), (a - 5, middle))
            body.append(Markup('<polygon class="reference" points="{}"/>').format(_points(corners)))
        dot = Markup('<circle class="dot c1" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>')
        body.append(dot.format(horizontal(row.value), middle, row.text))
    body.append(_text("label", (left + WIDTH - _RIGHT) / 2, height - 4, x.label, "middle"))
    return _svg(height, alt, Markup("").join(body))


def _place(x: Axis, y: Axis, point: Point) -> Point:
    return (
        _LEFT + x.share(point[0]) * (WIDTH - _LEFT - _RIGHT),
        HEIGHT - _BOTTOM - y.share(point[1]) * (HEIGHT - _TOP - _BOTTOM),
    )


def _frame(x: Axis, y: Axis, alt: str, body: Markup) -> Markup:
    """A chart's grid, ticks and labels around ``body``."""
    parts = []
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for value, text in y.ticks:
        _, at = _place(x, y, (x.low, value))
        parts.append(_segment("grid", (_LEFT, at), (right, at)))
        parts.append(_text("tick", _LEFT - 6, at + 4, text, "end"))
    for value, text in x.ticks:
        at, _ = _place(x, y, (value, y.low))
        parts.append(_text("tick", at, bottom + 15, text, "middle"))
    parts.append(_segment("axis", (_LEFT, bottom), (right, bottom)))
    parts.append(_text("label", 2, 11, y.label, "start"))
    parts.append(_text("label", (_LEFT + right) / 2, HEIGHT - 5, x.label, "middle"))
    return _svg(HEIGHT, alt, Markup("").join([*parts, body]))


def _svg(height: float, alt: str, body: Markup) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, alt, body
    )


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _segment(style: str, start: Point, end: Point) -> Markup:
    line = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return line.format(style, *start, *end)


def _text(style: str, x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        style, x, y, anchor, text
    )
