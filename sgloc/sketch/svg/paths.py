"""Conversion of path data to chains of cubic curves, and of chains to points.

A chain is float64 [1 + 3n, 2]: a start point, then two control points and the end point of each of n curves. A straight
line is a curve whose control points lie on it.
"""

import re

import numpy as np
import numpy.typing as npt
from fontTools.misc.transform import Transform
from fontTools.pens.recordingPen import RecordingPen
from fontTools.svgLib import path as font_tools

from sgloc.sketch.svg.limits import LIMITS, Limits
from sgloc.sketch.svg.measures import NUMBER, to_float

Chain = npt.NDArray[np.float64]

_COMMAND = re.compile("([A-DF-Za-df-z])")
_ARGUMENT = rf"[\s,]*+({NUMBER})"
_NUM_ARGUMENTS = {"m": 2, "l": 2, "h": 1, "v": 1, "c": 6, "s": 4, "q": 4, "t": 2}
_ARGUMENTS = {command: re.compile(_ARGUMENT * count) for command, count in _NUM_ARGUMENTS.items()}
# The flags of an arc need no separator between them.
_ARGUMENTS["a"] = re.compile(_ARGUMENT * 3 + r"[\s,]*+([01])" * 2 + _ARGUMENT * 2)
_MOST_PIECES = 1000
# Longer data exceeds the limit of curves in any case.
_MOST_COMMANDS = LIMITS["curve"][0] + 1


def parse_path(text: str, limits: Limits) -> tuple[list[Chain], bool]:
    """Parse path data; as in browsers, everything before the first error counts.

    Chains of a single point, which a move without a following command leaves, are dropped.

    Args:
        text: the path data.
        limits: counts the arcs, which take several times as long as other commands.

    Returns:
        The chains, and whether the data has no error.

    Raises:
        UnreadableError: if the file has too many arcs.
    """
    commands, is_whole = _sound_commands(text, limits)
    pen = RecordingPen()
    try:
        font_tools.parse_path(" ".join(commands), pen)
    except (ValueError, ArithmeticError):
        # The data does not start with a move, or an arc is too large to compute.
        is_whole = False
    chains: list[list[complex]] = []
    for operation, places in pen.value:
        points = [complex(*place) for place in places]
        if operation == "moveTo":
            chains.append(points)
        elif operation == "closePath" and len(chains[-1]) == 1:
            # A closed path of one point is a dot: one curve whose points coincide.
            chains[-1] *= 4
        elif points:
            chains[-1] += _cubic(chains[-1][-1], points)
    return [np.array(chain).view(np.float64).reshape(-1, 2) for chain in chains if len(chain) > 1], is_whole


def _sound_commands(text: str, limits: Limits) -> tuple[list[str], bool]:
    """Return the commands of path data up to the first error, in normalised form, and whether there is no error."""
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
            while len(commands) < _MOST_COMMANDS and (found := pattern.match(arguments, end)):
                if command in "Aa":
                    limits.count("arc")
                commands.append(_plain(command, [to_float(argument) for argument in found.groups()]))
                # Further coordinates of a move are lines.
                command = {"M": "L", "m": "l"}.get(command, command)
                end = found.end()
        if len(commands) == _MOST_COMMANDS:
            break
        if (end == 0 and command not in "Zz") or arguments[end:].strip(" \t\r\n\f,"):
            return commands, False
    return commands, True


def _plain(command: str, numbers: list[float]) -> str:
    """Write a command and its arguments in a form that every parser of path data accepts."""
    if command in "Aa" and 0 in numbers[:2]:
        # An arc with a zero radius is a line.
        command, numbers = {"A": "L", "a": "l"}[command], numbers[5:]
    return f"{command} {' '.join(f'{number:.17g}' for number in numbers)}"


def _cubic(start: complex, points: list[complex]) -> list[complex]:
    """Convert a line, quadratic or cubic curve to a cubic one: its control points and its end point."""
    if len(points) == 3:
        return points
    to = points[-1]
    middle = points[0] if len(points) == 2 else (start + to) / 2
    return [start + (middle - start) * 2 / 3, to + (middle - to) * 2 / 3, to]


def transformed(chain: Chain, matrix: Transform) -> Chain:
    """Apply a matrix to a chain."""
    along_x, along_y, shift = np.array(matrix, dtype=np.float64).reshape(3, 2)
    return chain[:, :1] * along_x + chain[:, 1:] * along_y + shift


def flattened(chain: Chain, tolerance: float) -> Chain:
    """Convert a chain to a polyline [m, 2] with few points that stays within about a tolerance of the curves."""
    curves = np.stack([chain[:-1:3], chain[1::3], chain[2::3], chain[3::3]], axis=1)
    bend = np.abs(np.diff(curves, n=2, axis=1)).max((1, 2))
    num_pieces = np.ceil(np.sqrt(bend * 0.75 / tolerance)).clip(1, _MOST_PIECES).astype(np.int64)
    curve = np.repeat(np.arange(len(num_pieces)), num_pieces)
    place = np.arange(len(curve)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces) + 1
    t = place / num_pieces[curve]
    weights = np.stack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], axis=1)
    return np.concatenate([chain[:1], np.einsum("pk,pkd->pd", weights, curves[curve])])
