"""The charts, drawn as inline SVG.

Text keeps its size at every page width: horizontal positions are per cent of the plot, and only the curves themselves
live in a stretched inner drawing. Margins for the axis labels are the page's (`.plot` in page.css).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from tunesmith.report.wording import NARROW, figure, interval, percent, words

Point = tuple[float, float]

CURVE_HEIGHT = 220
MOST_POINTS = 600
"""A curve with more points is thinned: a screen has no more columns to show them in."""


class Estimate(NamedTuple):
    """A share with its interval."""

    value: float
    low: float | None
    high: float | None


class Comparison(NamedTuple):
    """One line of the accuracy chart."""

    name: str
    base: Estimate | None
    tuned: Estimate | None


class Series(NamedTuple):
    """One curve: points in order of their step."""

    name: str
    kind: str
    """The class that gives it its colour: `train`, `validation`."""
    points: Sequence[Point]


class Chart(NamedTuple):
    """A drawn chart and, for the read-out under the pointer, what it was drawn from."""

    title: str
    svg: Markup
    data: dict[str, object]
    note: str = ""


def accuracy_chart(rows: Sequence[Comparison]) -> Markup:
    """Dots with interval whiskers on a scale from 0 to 100 %, base above tuned, one band for each test set."""
    band, top = 84, 6
    height = top + band * len(rows)
    parts = [
        Markup(
            '<line class="grid" x1="{0}%" x2="{0}%" y1="0" y2="{1}"/>'
            '<text class="tick" x="{0}%" y="{2}">{0}{3}</text>'
        ).format(tick, height, height + 18, f"{NARROW}%" if tick in (0, 100) else "")
        for tick in (0, 25, 50, 75, 100)
    ]  # fmt: skip
    for i, row in enumerate(rows):
        y = top + band * i
        parts.append(Markup('<text class="band" x="0" y="{}">{}</text>').format(y + 16, words(row.name)))
        for offset, kind, estimate in ((38, "base", row.base), (62, "tuned", row.tuned)):
            if estimate is not None:
                parts.append(_whisker(kind, estimate, y + offset))
    said = "; ".join(
        f"{words(row.name)}: "
        + ", ".join(
            f"{kind} {percent(e.value)}" + (f" ({interval(e.low, e.high)})" if e.low is not None else "")
            for kind, e in (("base", row.base), ("tuned", row.tuned))
            if e is not None
        )
        for row in rows
    )
    return Markup('<svg class="accuracy" role="img" aria-label="{}" width="100%" height="{}">{}</svg>').format(
        f"Accuracy with intervals. {said}", height + 24, Markup("").join(parts)
    )


def _whisker(kind: str, estimate: Estimate, y: float) -> Markup:
    value = round(100 * estimate.value, 2)
    line = Markup("")
    if estimate.low is not None and estimate.high is not None:
        line = Markup(
            '<line class="{0} whisker" x1="{1}%" x2="{2}%" y1="{3}" y2="{3}"/>'
            '<line class="{0} cap" x1="{1}%" x2="{1}%" y1="{4}" y2="{5}"/>'
            '<line class="{0} cap" x1="{2}%" x2="{2}%" y1="{4}" y2="{5}"/>'
        ).format(kind, round(100 * estimate.low, 2), round(100 * estimate.high, 2), y, y - 4, y + 4)
    # The number goes where there is room: right of the interval, or left of it near the right edge.
    right = (estimate.high if estimate.high is not None else estimate.value) < 0.72
    edge = estimate.high if right else estimate.low
    label = Markup('<text class="value {}" x="{}%" dx="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind,
        round(100 * (edge if edge is not None else estimate.value), 2),
        11 if right else -11,
        y + 4.5,
        "start" if right else "end",
        f"{kind} {percent(estimate.value)}",
    )
    return line + Markup('<circle class="{} dot" cx="{}%" cy="{}" r="5.5"/>').format(kind, value, y) + label


def curve_chart(title: str, series: Sequence[Series], *, log: bool | None = None, zero: bool = False) -> Chart | None:
    """Curves over optimizer steps, or None when there is nothing to draw.

    Args:
        title: what the values are.
        series: the curves; values that are not finite were left out by the caller.
        zero: whether the scale starts at 0, so that heights compare as amounts.
        log: a logarithmic scale; None decides by the spread (more than a factor of 20 between positive values).
    """
    drawn = [one._replace(points=thin(one.points)) for one in series if one.points]
    if not drawn:
        return None
    steps = [step for one in drawn for step, _ in one.points]
    values = [value for one in drawn for _, value in one.points]
    if log is None:
        log = min(values) > 0 and max(values) / min(values) > 20
    x0, x1 = min(steps), max(steps)
    x1 = x1 if x1 > x0 else x0 + 1
    ticks = _log_ticks(min(values), max(values)) if log else _ticks(0 if zero else min(values), max(values))
    y0, y1 = ticks[0], ticks[-1]

    def across(step: float) -> float:
        return round(100 * (step - x0) / (x1 - x0), 3)

    def down(value: float) -> float:
        share = math.log(value / y0) / math.log(y1 / y0) if log else (value - y0) / (y1 - y0)
        return round(CURVE_HEIGHT * (1 - share), 2)

    parts = [
        Markup(
            '<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>'
            '<text class="tick y" x="0" dx="-8" y="{1}">{2}</text>'
        ).format(down(tick), down(tick) + 4, f"{tick:,.10g}")
        for tick in ticks
    ]  # fmt: skip
    marks = [tick for tick in _ticks(x0, x1) if x0 <= tick <= x1 and tick == int(tick)]
    parts += [
        Markup('<text class="tick" x="{}%" y="{}">{}</text>').format(across(tick), CURVE_HEIGHT + 18, f"{tick:,.0f}")
        for tick in marks
    ]
    curves = []
    for one in drawn:
        path = " ".join(f"{across(step)},{down(value)}" for step, value in one.points)
        curves.append(Markup('<polyline class="curve {}" points="{}"/>').format(one.kind, path))
        if len(one.points) <= 12:
            parts += [
                Markup('<circle class="spot {}" cx="{}%" cy="{}" r="3.5"/>').format(one.kind, across(step), down(value))
                for step, value in one.points
            ]
    inner = Markup('<svg viewBox="0 0 100 {0}" width="100%" height="{0}" preserveAspectRatio="none">{1}</svg>').format(
        CURVE_HEIGHT, Markup("").join(curves)
    )
    said = "; ".join(f"{one.name} from {figure(one.points[0][1])} to {figure(one.points[-1][1])}" for one in drawn)
    svg = Markup('<svg role="img" aria-label="{}" width="100%" height="{}">{}{}</svg>').format(
        f"{title} over steps {x0:,.0f} to {x1:,.0f}: {said}", CURVE_HEIGHT + 24, Markup("").join(parts), inner
    )
    data = {
        "x": [x0, x1], "y": [y0, y1], "log": log, "height": CURVE_HEIGHT,
        "series": [{"name": one.name, "kind": one.kind, "points": [list(p) for p in one.points]} for one in drawn],
    }  # fmt: skip
    return Chart(title, svg, data, "logarithmic scale" if log else "")


def thin(points: Sequence[Point]) -> list[Point]:
    """At most `MOST_POINTS` of the points, keeping the lowest and the highest of every stretch left out."""
    if len(points) <= MOST_POINTS:
        return list(points)
    stretch = math.ceil(2 * len(points) / (MOST_POINTS - 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        kept.add(min(part, key=lambda i: points[i][1]))
        kept.add(max(part, key=lambda i: points[i][1]))
    return [points[i] for i in sorted(kept)]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose the values, about five of them."""
    if high <= low:
        low, high = (low - 1, low + 1) if low == 0 else (low - abs(low) / 2, low + abs(low) / 2)
    raw = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that enclose the values; only powers of ten when the values span many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1.0, 2.0, 5.0) if len(decades) <= 3 else (1.0,)
    marks = [m * 10.0**d for d in decades for m in steps]
    first = max((i for i, mark in enumerate(marks) if mark <= low * (1 + 1e-9)), default=0)
    last = min((i for i, mark in enumerate(marks) if mark >= high * (1 - 1e-9)), default=len(marks) - 1)
    return marks[first : max(last, first + 1) + 1]
