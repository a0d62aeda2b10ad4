"""Path data as chains of cubic curves, and those as points.

A chain is float64 [1 + 3n, 2]: a first point, and of each of n curves two control points and the end. A straight line
is a curve whose control points lie on it.
"""

import re

import numpy as np
import numpy.typing as npt
from fontTools.misc.transform import Transform
from fontTools.pens.recordingPen import RecordingPen
from fontTools.svgLib import path as font_tools

from sgloc.sketch.svg.measures import NUMBER, to_float

Chain = npt.NDArray[np.float64]

_COMMAND = re.compile("([A-DF-Za-df-z])")
_ARGUMENT = rf"[\s,]*+({NUMBER})"
_NUM_ARGUMENTS = {"m": 2, "l": 2, "h": 1, "v": 1, "c": 6, "s": 4, "q": 4, "t": 2}
_ARGUMENTS = {command: re.compile(_ARGUMENT * count) for command, count in _NUM_ARGUMENTS.items()}
# The flags of an arc need no space between them.
_ARGUMENTS["a"] = re.compile(_ARGUMENT * 3 + r"[\s,]*+([01])" * 2 + _ARGUMENT * 2)
_MOST_PIECES = 1000


def parse_path(text: str, most: int) -> tuple[list[Chain], bool]:
    """The chains of path data, and whether all of it could be read; as in browsers, what stands before a fault counts.

    A chain of a lone point, which a move leaves where nothing follows, is not among them.

    Args:
        text: the data.
        most: the rest of the data after this number of lines and curves is not read.
    """
    commands, is_whole = _sound_commands(text, most)
    pen = RecordingPen()
    try:
        font_tools.parse_path(" ".join(commands), pen)
    except (ValueError, ArithmeticError):
        # It does not begin with a move, or it has an arc too large to compute.
        is_whole = False
    chains: list[list[complex]] = []
    for operation, places in pen.value:
        points = [complex(*place) for place in places]
        if operation == "moveTo":
            chains.append(points)
        elif operation == "closePath" and len(chains[-1]) == 1:
            # A closed dot is a dot.
            chains[-1] *= 4
        elif points:
            chains[-1] += _cubic(chains[-1][-1], points)
    return [np.array(chain).view(np.float64).reshape(-1, 2) for chain in chains if len(chain) > 1], is_whole


def _sound_commands(text: str, most: int) -> tuple[list[str], bool]:
    """The commands of path data up to its first fault, written plainly, and whether those are all."""
    start, *parts = _COMMAND.split(text)
    commands: list[str] = []
    if start.strip():
        return commands, False
    for command, arguments in zip(parts[::2], parts[1::2], strict=True):
        end = 0
        if command in "Zz":
            commands.append(command)
        elif command.lower() in _ARGUMENTS:
            pattern = _ARGUMENTS[command.lower()]
            while len(commands) < most and (found := pattern.match(arguments, end)):
                commands.append(_plain(command, [to_float(argument) for argument in found.groups()]))
                # More places of a move are lines.
                command = {"M": "L", "m": "l"}.get(command, command)
                end = found.end()
        if len(commands) == most:
            break
        if (end == 0 and command not in "Zz") or arguments[end:].strip(" \t\r\n\f,"):
            return commands, False
    return commands, True


def _plain(command: str, numbers: list[float]) -> str:
    """A command and its arguments as every reader of path data takes them."""
    if command in "Aa" and 0 in numbers[:2]:
        # An arc of no radius is a line.
        command, numbers = {"A": "L", "a": "l"}[command], numbers[5:]
    return f"{command} {' '.join(f'{number:.17g}' for number in numbers)}"


def _cubic(start: complex, points: list[complex]) -> list[complex]:
    """A line, quadratic or cubic curve as a cubic one: its control points and its end."""
    if len(points) == 3:
        return points
    to = points[-1]
    middle = points[0] if len(points) == 2 else (start + to) / 2
    return [start + (middle - start) * 2 / 3, to + (middle - to) * 2 / 3, to]


def transformed(chain: Chain, matrix: Transform) -> Chain:
    """A chain under a matrix."""
    along_x, along_y, shift = np.array(matrix, dtype=np.float64).reshape(3, 2)
    return chain[:, :1] * along_x + chain[:, 1:] * along_y + shift


def flattened(chain: Chain, tolerance: float) -> Chain:
    """A chain's points [m, 2]: as few as leave no place of a curve farther than about a tolerance from the polyline."""
    curves = np.stack([chain[:-1:3], chain[1::3], chain[2::3], chain[3::3]], axis=1)
    bend = np.abs(np.diff(curves, n=2, axis=1)).max((1, 2))
    num_pieces = np.ceil(np.sqrt(bend * 0.75 / tolerance)).clip(1, _MOST_PIECES).astype(np.int64)
    curve = np.repeat(np.arange(len(num_pieces)), num_pieces)
    place = np.arange(len(curve)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces) + 1
    t = place / num_pieces[curve]
    weights = np.stack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], axis=1)
    return np.concatenate([chain[:1], np.einsum("pk,pkd->pd", weights, curves[curve])])
