"""Parsing of numbers, lengths, transforms and view boxes in SVG and CSS."""

import math
import re

from fontTools.misc.transform import Identity, Transform

ViewBox = tuple[float, float, float, float]

# An atomic group, so that a long run of digits cannot cause catastrophic backtracking.
NUMBER = r"(?>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)"
_LARGEST = 1e300
_LONGEST_TRANSFORM = 10_000
# CSS units in pixels; the font size of the root is nearly always 16 pixels.
_PIXELS = {"": 1.0, "px": 1.0, "in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4, "q": 96 / 101.6}
_PIXELS |= {"pt": 96 / 72, "pc": 16.0, "rem": 16.0}
_RADIANS = {"": math.radians(1), "deg": math.radians(1), "grad": math.radians(0.9), "rad": 1.0, "turn": 2 * math.pi}
_VALUE = re.compile(rf"({NUMBER})\s?(%|[a-zA-Z]*)")
_NUMBERS = re.compile(NUMBER)
_FUNCTION = re.compile(r"[ ,]*(matrix|rotate|(?:translate|scale|skew)[XY]?) ?\(([^()]*)\) ?")


def to_float(number: str) -> float:
    """Convert a number, clamped to values that are safe to compute with."""
    return max(-_LARGEST, min(_LARGEST, float(number)))


def parse_number(text: str | None, default: float) -> float:
    """Parse a number or a percentage of 1; return the default for anything else."""
    value = _VALUE.fullmatch((text or "").strip())
    if value is None or value[2] not in ("", "%"):
        return default
    return to_float(value[1]) / (100 if value[2] else 1)


def parse_length(text: str | None, percent_of: float, font_size: float) -> float | None:
    """Parse a length in user units; return None if it is missing, "auto" or not a length.

    Args:
        text: a number with or without a unit.
        percent_of: the length of 100 %, in user units.
        font_size: in user units.
    """
    value = _VALUE.fullmatch((text or "").strip())
    # In most fonts an x is half the font size high, and a 0 half the font size wide.
    relative = {"%": percent_of / 100, "em": font_size, "ex": font_size / 2, "ch": font_size / 2}
    unit = None if value is None else (_PIXELS | relative).get(value[2].lower())
    return None if value is None or unit is None else to_float(value[1]) * unit


def parse_transform(text: str, *, is_css: bool) -> Transform | None:
    """Parse a list of transforms into one matrix; return None if the list is invalid.

    Args:
        text: the list.
        is_css: whether angles and lengths need units, as they do in a style but not in an attribute.
    """
    matrix, position = Identity, 0
    text = " ".join(text.split())
    if text == "none":
        return matrix
    if len(text) > _LONGEST_TRANSFORM:
        return None
    while position < len(text):
        function = _FUNCTION.match(text, position)
        step = None if function is None else _parse_function(function[1], function[2], is_css)
        if function is None or step is None:
            return None
        matrix, position = matrix.transform(step), function.end()
    return matrix


# For each transform the kinds of its arguments (number, angle, length) and the allowed numbers of arguments.
_TRANSFORMS = {
    "matrix": ("nnnnnn", (6,)),
    "translate": ("ll", (1, 2)),
    "scale": ("nn", (1, 2)),
    "rotate": ("all", (1, 3)),
    "skew": ("aa", (1, 2)),
}
_UNITS = {"n": {"": 1.0}, "a": _RADIANS, "l": _PIXELS}


def _parse_function(name: str, text: str, is_css: bool) -> Transform | None:
    """Return the matrix of one transform, or None if its arguments are invalid."""
    arguments = re.split(r" ?, ?" if is_css else r" ?, ?| |(?<=[\d.])(?=[-+])(?<![eE])", text.strip())
    kinds, counts = _TRANSFORMS[name.rstrip("XY")]
    if name[-1] in "XY" or (is_css and name == "rotate"):
        counts = (1,)
    if len(arguments) not in counts:
        return None
    numbers = []
    for argument, kind in zip(arguments, kinds, strict=False):
        value = _VALUE.fullmatch(argument)
        unit = None if value is None else _UNITS[kind].get(value[2].lower())
        if value is None or unit is None or (is_css and kind != "n" and not value[2] and float(value[1]) != 0):
            return None
        numbers.append(to_float(value[1]) * unit)
    return _matrix(name, numbers)


def _matrix(name: str, numbers: list[float]) -> Transform:
    if name == "matrix":
        return Transform(*numbers)
    if name == "rotate" and len(numbers) == 3:
        angle, x, y = numbers
        return Identity.translate(x, y).rotate(angle).translate(-x, -y)
    if name[-1] in "XY":
        # The other axis keeps its scale of 1, or its shift or skew of 0.
        numbers.insert("YX".index(name[-1]), 1.0 if name.startswith("scale") else 0.0)
    return getattr(Identity, name.rstrip("XY"))(*numbers)


def parse_view_box(text: str | None) -> ViewBox | None:
    """Parse a view box into its corner, width and height; return None if it is missing or invalid."""
    numbers = [to_float(number) for number in _NUMBERS.findall((text or "")[:1000])]
    if len(numbers) != 4 or not (numbers[2] > 0 and numbers[3] > 0):
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]


def view_box_matrix(view_box: ViewBox, width: float, height: float, aspect: str | None) -> Transform:
    """Return the matrix that maps a view box to a viewport at the origin.

    Args:
        view_box: corner, width and height of the view box.
        width: width of the viewport.
        height: height of the viewport.
        aspect: the preserveAspectRatio attribute, such as "xMidYMid meet".
    """
    x, y, box_width, box_height = view_box
    scale_x, scale_y = width / box_width, height / box_height
    words = (aspect or "").split() or ["xMidYMid"]
    if words[0] != "none":
        scale_x = scale_y = max(scale_x, scale_y) if "slice" in words[1:] else min(scale_x, scale_y)
    place = {"xMin": 0.0, "xMax": 1.0}.get(words[0][:4], 0.5), {"YMin": 0.0, "YMax": 1.0}.get(words[0][4:], 0.5)
    shift_x, shift_y = (width - box_width * scale_x) * place[0], (height - box_height * scale_y) * place[1]
    return Identity.translate(shift_x, shift_y).scale(scale_x, scale_y).translate(-x, -y)
