"""Outlines as chains of cubic curves: from path data and the basic shapes, and on to points.

A chain is float64 [1 + 3n, 2]: a first point, and of each of n curves two control points and the end. A straight line
is a curve whose control points lie on it.
"""

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sgloc.sketch.svg.measures import NUMBER

Chain = npt.NDArray[np.float64]
_Point = tuple[float, float]

_COMMAND = re.compile(r"([MmLlHhVvCcSsQqTtAaZz])([^MmLlHhVvCcSsQqTtAaZz]*)")
_NUMBERS = re.compile(NUMBER)
_SEPARATOR = r"[\s,]*+"
_NUMBER_RUN = re.compile(rf"(?:{_SEPARATOR}{NUMBER})*")
_ARC = re.compile(_SEPARATOR + _SEPARATOR.join([rf"({NUMBER})"] * 3 + [r"([01])"] * 2 + [rf"({NUMBER})"] * 2))
_NUM_ARGUMENTS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "A": 7}
# The curves that a full turn becomes; its error is then 4e-6 of the radius.
_CURVES_A_TURN = 8
_MOST_PIECES = 1000


def parse_path(text: str, most: int) -> tuple[list[Chain], bool]:
    """The chains of path data, and whether all of it could be read; as in browsers, what stands before a fault counts.

    A chain of a lone point, which a move leaves where nothing follows, is not among them.

    Args:
        text: the data.
        most: after so many curves the rest is not looked at.
    """
    pen = _Pen(most)
    position = len(text) - len(text.lstrip())
    while position < len(text) and pen.num_left > 0:
        command = _COMMAND.match(text, position)
        if command is None or (not pen.has_moved and command[1] not in "Mm"):
            return pen.finish(), False
        if not _draw(pen, command[1], command[2]):
            return pen.finish(), False
        position = command.end()
    return pen.finish(), True


def _draw(pen: "_Pen", command: str, text: str) -> bool:
    """Draw one command with all its arguments; whether they could all be read."""
    kind, is_relative = command.upper(), command.islower()
    if kind == "Z":
        pen.close()
        return not text.strip()
    count = _NUM_ARGUMENTS[kind]
    most = count * pen.num_left
    numbers, is_whole = _arc_numbers(text, most) if kind == "A" else _plain_numbers(text, most)
    for start in range(0, len(numbers) - count + 1, count):
        if pen.num_left <= 0:
            break
        pen.draw("L" if kind == "M" and start else kind, numbers[start : start + count], is_relative)
    return is_whole and len(numbers) >= count and len(numbers) % count == 0


def _plain_numbers(text: str, most: int) -> tuple[list[float], bool]:
    run = _NUMBER_RUN.match(text)
    end = run.end() if run else 0
    found = itertools.islice(_NUMBERS.finditer(text, 0, end), most)
    return [float(number[0]) for number in found], not text[end:].strip()


def _arc_numbers(text: str, most: int) -> tuple[list[float], bool]:
    numbers: list[float] = []
    position = 0
    while len(numbers) < most and (arc := _ARC.match(text, position)):
        numbers += map(float, arc.groups())
        position = arc.end()
    return numbers, not text[position:].strip()


class _Pen:
    """Draws chains as path data tells."""

    def __init__(self, most: int) -> None:
        self.has_moved = False
        self.num_left = most
        self._chains: list[Chain] = []
        self._points: list[_Point] = []
        self._start: _Point = (0.0, 0.0)
        self._here: _Point = (0.0, 0.0)
        # The last control point, and the kinds of command that a smooth curve would mirror it after.
        self._control: tuple[_Point, str] = ((0.0, 0.0), "")

    def finish(self) -> list[Chain]:
        """The chains that were drawn."""
        self._lift()
        return self._chains

    def close(self) -> None:
        """Draw a line to where the chain began, and begin the next there."""
        # A closed dot is a dot, but a line of no length at the end of others is nothing.
        if self._here != self._start or len(self._points) <= 1:
            self._line(self._start)
        self._lift()
        self._here = self._start
        self._control = (self._here, "")

    def draw(self, kind: str, numbers: Sequence[float], is_relative: bool) -> None:
        """Draw a command with its numbers."""
        x, y = self._here if is_relative else (0.0, 0.0)
        if kind == "H":
            self._line((x + numbers[0], self._here[1]))
        elif kind == "V":
            self._line((self._here[0], y + numbers[0]))
        elif kind == "A":
            self._arc(numbers, (x + numbers[5], y + numbers[6]))
        else:
            points = [(x + dx, y + dy) for dx, dy in zip(numbers[::2], numbers[1::2], strict=True)]
            if kind == "M":
                self._move(points[0])
            elif kind == "L":
                self._line(points[0])
            elif kind in "CS":
                first = self._mirrored("CS") if kind == "S" else points[0]
                self._cubic(first, points[-2], points[-1])
                self._control = (points[-2], kind)
            else:
                middle = self._mirrored("QT") if kind == "T" else points[0]
                self._quadratic(middle, points[-1])
                self._control = (middle, kind)
        if kind not in "CSQT":
            self._control = (self._here, "")

    def _lift(self) -> None:
        if len(self._points) > 1:
            self._chains.append(np.array(self._points, dtype=np.float64))
        self._points = []

    def _move(self, to: _Point) -> None:
        self._lift()
        self.has_moved = True
        self._start = self._here = to

    def _line(self, to: _Point) -> None:
        (x, y), (to_x, to_y) = self._here, to
        first = (x + (to_x - x) / 3, y + (to_y - y) / 3)
        self._cubic(first, (to_x + (x - to_x) / 3, to_y + (y - to_y) / 3), to)

    def _quadratic(self, middle: _Point, to: _Point) -> None:
        first, second = ((x + (middle[0] - x) * 2 / 3, y + (middle[1] - y) * 2 / 3) for x, y in (self._here, to))
        self._cubic(first, second, to)

    def _cubic(self, first: _Point, second: _Point, to: _Point) -> None:
        if not self._points:
            self._points.append(self._here)
        self.num_left -= 1
        self._points += (first, second, to)
        self._here = to

    def _mirrored(self, kinds: str) -> _Point:
        (x, y), kind = self._control
        if not kind or kind not in kinds:
            return self._here
        return 2 * self._here[0] - x, 2 * self._here[1] - y

    def _arc(self, numbers: Sequence[float], to: _Point) -> None:
        radius_x, radius_y = abs(numbers[0]), abs(numbers[1])
        if to == self._here:
            return
        if not (radius_x and radius_y) or not all(map(math.isfinite, (*numbers, *to, *self._here))):
            self._line(to)
            return
        curves = _arc_between(self._here, to, radius_x, radius_y, numbers[2], bool(numbers[3]), bool(numbers[4]))
        for first, second, end in zip(curves[1::3], curves[2::3], curves[3::3], strict=True):
            self._cubic(first, second, end)
        # Where rounding would leave a gap.
        self._points[-1] = self._here = to


def _arc_between(
    start: _Point, to: _Point, radius_x: float, radius_y: float, degrees: float, is_large: bool, is_clockwise: bool
) -> list[_Point]:
    """An arc of an ellipse from one point to another, as SVG's appendix on elliptical arcs has it."""
    turn = math.radians(degrees)
    cosine, sine = math.cos(turn), math.sin(turn)
    half_x, half_y = (start[0] - to[0]) / 2, (start[1] - to[1]) / 2
    x, y = cosine * half_x + sine * half_y, cosine * half_y - sine * half_x
    # Radii that cannot reach are enlarged until they do.
    reach = math.hypot(x / radius_x, y / radius_y)
    if reach > 1:
        radius_x, radius_y = radius_x * reach, radius_y * reach
    distance = (x / radius_x) ** 2 + (y / radius_y) ** 2
    factor = math.sqrt(max(0.0, 1 / distance - 1)) if distance > 0 else 0.0
    factor = -factor if is_large == is_clockwise else factor
    center_x, center_y = factor * radius_x * y / radius_y, -factor * radius_y * x / radius_x
    first = math.atan2((y - center_y) / radius_y, (x - center_x) / radius_x)
    last = math.atan2((-y - center_y) / radius_y, (-x - center_x) / radius_x)
    sweep = (last - first) % (2 * math.pi)
    if not is_clockwise and sweep:
        sweep -= 2 * math.pi
    middle = (
        cosine * center_x - sine * center_y + (start[0] + to[0]) / 2,
        sine * center_x + cosine * center_y + (start[1] + to[1]) / 2,
    )
    return _turned_arc(middle, radius_x, radius_y, turn, first, sweep)


def _turned_arc(
    center: _Point, radius_x: float, radius_y: float, turn: float, first: float, sweep: float
) -> list[_Point]:
    """The points of a chain along an ellipse, from an angle on and through a sweep, all in radians."""
    num_curves = max(1, math.ceil(abs(sweep) / (2 * math.pi) * _CURVES_A_TURN - 1e-9))
    step = sweep / num_curves
    reach = 4 / 3 * math.tan(step / 4)
    circle: list[_Point] = [(math.cos(first), math.sin(first))]
    for number in range(num_curves):
        (x, y), angle = circle[-1], first + (number + 1) * step
        end = (math.cos(angle), math.sin(angle))
        circle += [(x - reach * y, y + reach * x), (end[0] + reach * end[1], end[1] - reach * end[0]), end]
    cosine, sine = math.cos(turn), math.sin(turn)
    return [
        (
            center[0] + cosine * radius_x * x - sine * radius_y * y,
            center[1] + sine * radius_x * x + cosine * radius_y * y,
        )
        for x, y in circle
    ]


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> Chain:
    """The chain of an ellipse, clockwise from its rightmost point."""
    chain = np.array(_turned_arc((x, y), radius_x, radius_y, 0.0, 0.0, 2 * math.pi))
    chain[-1] = chain[0]
    return chain


def rectangle(x: float, y: float, width: float, height: float, radius_x: float, radius_y: float) -> Chain:
    """The chain of a rectangle, clockwise from the left end of its upper side; radii of 0 leave its corners sharp."""
    pen = _Pen(_CURVES_A_TURN + 4)
    is_round = radius_x > 0 and radius_y > 0
    rx, ry = (min(radius_x, width / 2), min(radius_y, height / 2)) if is_round else (0.0, 0.0)
    right, bottom = x + width, y + height
    pen.draw("M", (x + rx, y), False)
    corners = [(right - rx, y, right, y + ry), (right, bottom - ry, right - rx, bottom)]
    corners += [(x + rx, bottom, x, bottom - ry), (x, y + ry, x + rx, y)]
    for number, (line_x, line_y, arc_x, arc_y) in enumerate(corners):
        # A sharp rectangle is closed by its last side.
        if is_round or number < 3:
            pen.draw("L", (line_x, line_y), False)
        if is_round:
            pen.draw("A", (rx, ry, 0, 0, 1, arc_x, arc_y), False)
    pen.close()
    (chain,) = pen.finish()
    return chain


def polyline(numbers: Sequence[float], *, is_closed: bool) -> list[Chain]:
    """The chain through points given as x and y in turn; none of a single point, unless it is closed."""
    pen = _Pen(len(numbers))
    for number, point in enumerate(zip(numbers[::2], numbers[1::2], strict=False)):
        pen.draw("L" if number else "M", point, False)
    if is_closed and pen.has_moved:
        pen.close()
    return pen.finish()


def transformed(chain: Chain, matrix: npt.NDArray[np.float64]) -> Chain:
    """A chain under a matrix [3, 3]."""
    return chain @ matrix[:2, :2].T + matrix[:2, 2]


def flattened(chain: Chain, tolerance: float) -> Chain:
    """A chain's points [m, 2]: as few as leave no place of a curve farther than about a tolerance from the polyline."""
    starts, firsts, seconds, ends = chain[:-1:3], chain[1::3], chain[2::3], chain[3::3]
    bend = np.maximum(np.abs(starts - 2 * firsts + seconds).max(1), np.abs(firsts - 2 * seconds + ends).max(1))
    num_pieces = np.ceil(np.sqrt(bend * 0.75 / tolerance)).clip(1, _MOST_PIECES).astype(np.int64)
    curve = np.repeat(np.arange(len(num_pieces)), num_pieces)
    place = np.arange(len(curve)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces) + 1
    t = (place / num_pieces[curve])[:, None]
    points = (
        (1 - t) ** 3 * starts[curve]
        + 3 * (1 - t) ** 2 * t * firsts[curve]
        + 3 * (1 - t) * t**2 * seconds[curve]
        + t**3 * ends[curve]
    )
    return np.concatenate([chain[:1], points])
