"""Lengths, lists of numbers and transforms, as SVG and CSS write them."""

import itertools
import math
import re

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

# Atomic, lest a long run of digits be split in every way before it is given up.
NUMBER = r"(?>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)"
_LONGEST_TRANSFORM = 10_000
# Of a pixel, as CSS has it.
_PIXELS = {
    "": 1.0,
    "px": 1.0,
    "in": 96.0,
    "cm": 96 / 2.54,
    "mm": 96 / 25.4,
    "q": 96 / 101.6,
    "pt": 96 / 72,
    "pc": 16.0,
    # The root's font has hardly ever another size.
    "rem": 16.0,
}
# Of the size of the font; an x is as high and a 0 as wide as half of it in most fonts.
_FONT_UNITS = {"em": 1.0, "ex": 0.5, "ch": 0.5}
_DEGREES = {"": 1.0, "deg": 1.0, "grad": 0.9, "rad": 180 / math.pi, "turn": 360.0}
_VALUE = re.compile(rf"({NUMBER})\s?(%|[a-zA-Z]*)")
_NUMBERS = re.compile(NUMBER)
_FUNCTION = re.compile(r"[ ,]*([a-zA-Z]+) ?\(([^()]*)\) ?")
_IDENTITY = np.eye(3)


def parse_number(text: str | None, default: float) -> float:
    """A number or a percentage of 1; the default where it is neither."""
    value = None if text is None else _VALUE.fullmatch(text.strip())
    if value is None or value[2] not in ("", "%"):
        return default
    return float(value[1]) / (100 if value[2] else 1)


def parse_numbers(text: str, most: int) -> list[float]:
    """The numbers of a text, whatever stands between them, but no more than so many."""
    return [float(number[0]) for number in itertools.islice(_NUMBERS.finditer(text), most)]


def parse_length(text: str | None, percent_of: float, font_size: float) -> float | None:
    """A length in user units; None where it is missing, "auto", or nothing that has a length.

    Args:
        text: a number with or without a unit.
        percent_of: what 100 % are, in user units.
        font_size: in user units.
    """
    value = None if text is None else _VALUE.fullmatch(text.strip())
    if value is None:
        return None
    number, unit = float(value[1]), value[2].lower()
    if unit == "%":
        return number / 100 * percent_of
    if unit in _FONT_UNITS:
        return number * _FONT_UNITS[unit] * font_size
    return number * _PIXELS[unit] if unit in _PIXELS else None


def translation(x: float, y: float) -> Matrix:
    """The matrix of a shift."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def parse_transform(text: str, *, is_css: bool) -> Matrix | None:
    """A list of transforms as one matrix [3, 3]; None where it is not one.

    Args:
        text: the list.
        is_css: whether angles and lengths need units, as they do in a style and not in an attribute.
    """
    matrix, position = _IDENTITY, 0
    text = " ".join(text.split())
    if text in ("", "none"):
        return matrix
    if len(text) > _LONGEST_TRANSFORM:
        return None
    while position < len(text):
        function = _FUNCTION.match(text, position)
        step = None if function is None else _parse_function(function[1], function[2], is_css)
        if function is None or step is None:
            return None
        matrix, position = matrix @ step, function.end()
    return matrix


def _parse_function(name: str, text: str, is_css: bool) -> Matrix | None:
    """The matrix of one transform; None where there is none of this name and these arguments."""
    parts = re.split(r" ?, ?" if is_css else r" ?, ?| |(?<=[\d.])(?=[-+])(?<![eE])", text.strip())
    values = [_VALUE.fullmatch(part) for part in parts]
    arguments = [(float(value[1]), value[2].lower()) for value in values if value is not None]
    if len(arguments) != len(values) or name not in _TRANSFORMS:
        return None
    kinds, counts = _TRANSFORMS[name]
    if len(arguments) not in counts or (is_css and name == "rotate" and len(arguments) != 1):
        return None
    numbers = []
    for (number, unit), kind in zip(arguments, kinds, strict=False):
        units = {"n": {"": 1.0}, "a": _DEGREES, "l": _PIXELS}[kind]
        if unit not in units or (is_css and kind != "n" and unit == "" and number != 0):
            return None
        numbers.append(number * units[unit])
    return _make(name, numbers)


# Of each transform, the kinds of its arguments (numbers, angles, lengths) and how many it may have.
_TRANSFORMS = {
    "matrix": ("nnnnnn", (6,)),
    "translate": ("ll", (1, 2)),
    "translateX": ("l", (1,)),
    "translateY": ("l", (1,)),
    "scale": ("nn", (1, 2)),
    "scaleX": ("n", (1,)),
    "scaleY": ("n", (1,)),
    "rotate": ("all", (1, 3)),
    "skewX": ("a", (1,)),
    "skewY": ("a", (1,)),
    "skew": ("aa", (1, 2)),
}


def _make(name: str, numbers: list[float]) -> Matrix:
    first, second = numbers[0], numbers[1] if len(numbers) > 1 else None
    if name == "matrix":
        return np.array([[*numbers[::2]], [*numbers[1::2]], [0.0, 0.0, 1.0]])
    if name.startswith("translate"):
        return translation(0.0, first) if name == "translateY" else translation(first, second or 0.0)
    if name.startswith("scale"):
        x = 1.0 if name == "scaleY" else first
        y = 1.0 if name == "scaleX" else first if second is None else second
        return np.diag([x, y, 1.0])
    if name.startswith("skew"):
        x = 0.0 if name == "skewY" else math.tan(math.radians(first))
        y = math.tan(math.radians(first)) if name == "skewY" else math.tan(math.radians(second or 0.0))
        return np.array([[1.0, x, 0.0], [y, 1.0, 0.0], [0.0, 0.0, 1.0]])
    sine, cosine = math.sin(math.radians(first)), math.cos(math.radians(first))
    turned = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    if len(numbers) == 3:
        turned = translation(*numbers[1:]) @ turned @ translation(-numbers[1], -numbers[2])
    return turned


def parse_view_box(text: str | None) -> tuple[float, float, float, float] | None:
    """A view box's corner, width and height; None where there is none that can be used."""
    numbers = [] if text is None else parse_numbers(text, 5)
    if len(numbers) != 4 or not (numbers[2] > 0 and numbers[3] > 0):
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]


def view_box_matrix(
    view_box: tuple[float, float, float, float], width: float, height: float, aspect: str | None
) -> Matrix:
    """The matrix from a view box to a viewport of this width and height at the origin.

    Args:
        view_box: its corner, width and height.
        width: of the viewport.
        height: of the viewport.
        aspect: preserveAspectRatio, as "xMidYMid meet".
    """
    x, y, box_width, box_height = view_box
    scale_x, scale_y = width / box_width, height / box_height
    words = (aspect or "").split() or ["xMidYMid"]
    if words[0] != "none":
        scale_x = scale_y = max(scale_x, scale_y) if "slice" in words[1:] else min(scale_x, scale_y)
    place = {"xMin": 0.0, "xMax": 1.0}.get(words[0][:4], 0.5), {"YMin": 0.0, "YMax": 1.0}.get(words[0][4:], 0.5)
    shift_x = (width - box_width * scale_x) * place[0] - x * scale_x
    shift_y = (height - box_height * scale_y) * place[1] - y * scale_y
    return np.array([[scale_x, 0.0, shift_x], [0.0, scale_y, shift_y], [0.0, 0.0, 1.0]])
