"""Where everything in a chart stands, in the units of its SVG: axes, points, lines, and labels that never overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from apd_bench.core.text import plain
from apd_bench.leaderboard.curves import Point, pareto_front
from apd_bench.leaderboard.looks import Look
from apd_bench.leaderboard.model import Row

WIDTH, _HEIGHT = 520, 350
_LEFT, _TOP, _BOTTOM = 46, 14, 44  # room for the axes
_LINE = 14.0  # the height of a line of labels
_NAME = 22  # letters of a name that are shown
_MARKS: Mapping[str, str] = {  # outlines of matplotlib's marks in a box of ten units
    "o": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",
    "s": "M-4,-4h8v8h-8z",
    "D": "M0,-5.6l5.6,5.6l-5.6,5.6l-5.6,-5.6z",
    "^": "M0,-5.2l5,9h-10z",
    "v": "M0,5.2l5,-9h-10z",
    "P": "M-1.8,-5h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
    "*": "M0,-6l1.6,4.1l4.4,.3l-3.4,2.8l1.1,4.3l-3.7,-2.4l-3.7,2.4l1.1,-4.3l-3.4,-2.8l4.4,-.3z",
    "X": "M-5,-2.6l2.4,-2.4l2.6,2.6l2.6,-2.6l2.4,2.4l-2.6,2.6l2.6,2.6l-2.4,2.4l-2.6,-2.6l-2.6,2.6l-2.4,-2.4l2.6,-2.6z",
}
_DASH: Mapping[str, str] = {"-": "", "--": "6 4", ":": "1.5 4"}
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Label:
    """A name beside what it names: where its text begins, and a thin line to the thing if that is not beside it."""

    text: str
    x: float
    y: float
    line: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Series:
    """One method: its look, its points [x, y], SVG paths of its uncertainty, its label, and all of it in words."""

    method: str
    colour: str
    mark: str
    dash: str
    points: tuple[tuple[float, float], ...]
    bars: str
    band: str
    label: Label
    words: str


@dataclass(frozen=True)
class Axis:
    """A title, and ticks as (position, text)."""

    title: str
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Chart:
    """A whole chart; `box` is its plot area, `front` a line through what no other beats."""

    name: str
    caption: str
    height: float
    box: Box
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    front: str = ""


class _Scale:
    """From values to positions, with ticks at round values."""

    def __init__(self, values: Iterable[float], start: float, end: float, *, zero: bool = False) -> None:
        known = [*values, *([0.0] if zero else [])]
        low, high = min(known), max(known)
        if high - low < 1e-6:
            low, high = low - 1, high + 1
        rough = (high - low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough * 0.999)
        first, last = math.floor(low / step), math.ceil(high / step)
        self.low, self.high, self._start, self._end = first * step, last * step, start, end
        self.ticks = tuple((round(self(n * step), 1), f"{round(n * step, 9):g}") for n in range(first, last + 1))

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 1)


def scatter(rows: Sequence[Row], looks: Mapping[str, Look]) -> Chart | None:
    """Clean against worst-case accuracy with both intervals; None without rows."""
    if not rows:
        return None
    box = (_LEFT, _TOP, WIDTH - 12.0, _HEIGHT - _BOTTOM)
    both = [(row, row.estimates["clean"], row.estimates["worst"]) for row in rows]
    x = _Scale([100 * clean.value for _, clean, _ in both], box[0] + 12, box[2] - 12)
    y = _Scale([100 * (worst.high or worst.value) for *_, worst in both], box[3], box[1], zero=True)
    at = {row.method: (x(100 * clean.value), y(100 * worst.value)) for row, clean, worst in both}
    labels = _beside(at, box)
    series = [
        Series(
            row.method, *_drawn(looks[row.method]), (at[row.method],),
            _path((at[row.method][0], y(100 * edge)) for edge in (worst.low, worst.high) if edge is not None),
            "", labels[row.method], f"clean {100 * clean.value:.1f} %, worst {100 * worst.value:.1f} %",
        )
        for row, clean, worst in both
    ]  # fmt: skip
    return Chart(
        "scatter", "Clean against worst-case accuracy, with the 95 % interval of worst; dashed: no other is better in "
        "both.", _HEIGHT, box, Axis("clean, %", x.ticks), Axis("worst, %", y.ticks), tuple(series),
        _path(at[name] for name in pareto_front(rows)),
    )  # fmt: skip


def curves(
    name: str, caption: str, titles: tuple[str, str], lines: Mapping[str, Sequence[Point]], looks: Mapping[str, Look]
) -> Chart | None:
    """A line a method with its 95 % band, its name at the end of the line; None where there is nothing to draw.

    `titles` are those of the axes. The more methods, the higher the chart, so that every name has a line of its own.
    """
    lines = {method: points for method, points in lines.items() if points}
    if not lines or all(len(points) < 2 for points in lines.values()):
        return None
    height = max(_HEIGHT, _TOP + _BOTTOM + _LINE * len(lines))
    longest = max(_width(method) for method in lines)
    box = (_LEFT, _TOP, WIDTH - 34 - longest, height - _BOTTOM)
    every = [point for points in lines.values() for point in points]
    x = _Scale([point.at for point in every], box[0] + 8, box[2] - 4, zero=min(point.at for point in every) < 3)
    y = _Scale([100 * (point.high or point.value) for point in every], box[3], box[1], zero=True)
    at = {method: [(x(p.at), y(100 * p.value)) for p in points] for method, points in lines.items()}
    labels = _at_the_ends({method: points[-1] for method, points in at.items()}, box)
    series = [
        Series(
            method, *_drawn(looks[method]), tuple(at[method]), "", _band(points, x, y), labels[method],
            ", ".join(f"{100 * point.value:.1f} % at {point.at:g}" for point in points),
        )
        for method, points in lines.items()
    ]  # fmt: skip
    ends = sorted({point.at for point in every})
    ticks = tuple((x(value), f"{value:g}") for value in ends) if len(ends) <= 8 else x.ticks
    return Chart(name, caption, height, box, Axis(titles[0], ticks), Axis(titles[1], y.ticks), tuple(series))


def _drawn(style: Look) -> tuple[str, str, str]:
    return style.colour, _MARKS[style.mark], _DASH[style.dash]


def _width(method: str) -> float:
    """At most so wide is a label in any usual font of 12 pixels."""
    signs = plain(method, _NAME)
    return sum(12.0 if sign in "mwMW@%" else 5.2 if sign in "fijlrtI.,:;'|!-()[] " else 8.2 for sign in signs)


def _path(points: Iterable[tuple[float, float]]) -> str:
    """A line through points; empty where there are none."""
    joined = "L".join(f"{x},{y}" for x, y in points)
    return joined and f"M{joined}"


def _band(points: Sequence[Point], x: _Scale, y: _Scale) -> str:
    known = [(x(point.at), point.low, point.high) for point in points if point.low is not None and point.high]
    if len(known) < 2:
        return ""
    upper = [(at, y(100 * high)) for at, _, high in known]
    lower = [(at, y(100 * (low or 0.0))) for at, low, _ in reversed(known)]
    return _path([*upper, *lower]) + "z"


def _at_the_ends(ends: Mapping[str, tuple[float, float]], box: Box) -> dict[str, Label]:
    """Names to the right of the plot area, as near to the ends of their lines as one line of text each allows."""
    order = sorted(ends, key=lambda method: ends[method][1])
    wanted = [ends[method][1] for method in order]
    places: list[float] = []
    for y in wanted:  # not above the one before
        places.append(max(y, places[-1] + _LINE if places else box[1]))
    limit = box[3]
    for number in range(len(places) - 1, -1, -1):  # and pushed up again from the lower edge
        places[number] = min(places[number], limit)
        limit = places[number] - _LINE
    made = {}
    for method, y in zip(order, places, strict=True):
        x_end, y_end = ends[method]
        text_at = box[2] + 32  # a mark stands before it
        made[method] = Label(
            plain(method, _NAME), text_at, round(y + 4, 1), (x_end + 6, y_end, text_at - 15, round(y, 1))
        )
    return made


def _beside(points: Mapping[str, tuple[float, float]], box: Box) -> dict[str, Label]:
    """A free place near each point, the nearest first; points and their marks count as taken."""
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in points.values()]
    made = {}
    for method, (x, y) in points.items():
        width = _width(method)
        free = next((place for place in _around(x, y, width) if _fits(place, taken, box)), None)
        left, top, right, bottom = free or (x + 8, y - _LINE / 2, x + 8 + width, y + _LINE / 2)
        taken.append((left, top, right, bottom))
        middle = (top + bottom) / 2
        near = min(max(x, left), right)
        far = math.hypot(near - x, middle - y) > 14
        line = (x, y, round(near, 1), round(middle, 1)) if far else None
        made[method] = Label(plain(method, _NAME), round(left, 1), round(middle + 4, 1), line)
    return made


def _around(x: float, y: float, width: float) -> Iterator[Box]:
    """Boxes for a name around a point, in rings."""
    for radius in (9, 16, 24, 34, 46, 60, 76, 94, 114, 136, 160, 190, 230, 280):
        for turn in range(16):
            angle = turn * math.pi / 8
            across, middle = x + radius * math.cos(angle), y + radius * math.sin(angle)
            left = across - width * (1 - math.cos(angle)) / 2
            yield (left, middle - _LINE / 2, left + width, middle + _LINE / 2)


def _fits(place: Box, taken: Iterable[Box], box: Box) -> bool:
    inside = place[0] >= box[0] and place[2] <= box[2] and place[1] >= box[1] and place[3] <= box[3]
    return inside and all(
        place[2] < other[0] or place[0] > other[2] or place[3] < other[1] or place[1] > other[3] for other in taken
    )
