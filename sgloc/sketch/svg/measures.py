"""Numbers, lengths, transforms and view boxes, as SVG and CSS write them."""

import math
import re

from fontTools.misc.transform import Identity, Transform

ViewBox = tuple[float, float, float, float]

# Atomic, lest a long run of digits be split in every way before it is given up.
NUMBER = r"(?>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)"
_LARGEST = 1e300
_LONGEST_TRANSFORM = 10_000
# Of a pixel, as CSS has it; the root's font has hardly ever another size.
_PIXELS = {"": 1.0, "px": 1.0, "in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4, "q": 96 / 101.6}
_PIXELS |= {"pt": 96 / 72, "pc": 16.0, "rem": 16.0}
_RADIANS = {"": math.radians(1), "deg": math.radians(1), "grad": math.radians(0.9), "rad": 1.0, "turn": 2 * math.pi}
_VALUE = re.compile(rf"({NUMBER})\s?(%|[a-zA-Z]*)")
_NUMBERS = re.compile(NUMBER)
_FUNCTION = re.compile(r"[ ,]*(matrix|rotate|(?:translate|scale|skew)[XY]?) ?\(([^()]*)\) ?")


def to_float(number: str) -> float:
    """The value of a number, or the largest that can be computed with."""
    return max(-_LARGEST, min(_LARGEST, float(number)))


def parse_number(text: str | None, default: float) -> float:
    """A number or a percentage of 1; the default where it is neither."""
    value = _VALUE.fullmatch((text or "").strip())
    if value is None or value[2] not in ("", "%"):
        return default
    return to_float(value[1]) / (100 if value[2] else 1)


def parse_length(text: str | None, percent_of: float, font_size: float) -> float | None:
    """A length in user units; None where it is missing, "auto", or nothing that has a length.

    Args:
        text: a number with or without a unit.
        percent_of: what 100 % are, in user units.
        font_size: in user units.
    """
    value = _VALUE.fullmatch((text or "").strip())
    # An x is as high and a 0 as wide as half the font's size in most fonts.
    relative = {"%": percent_of / 100, "em": font_size, "ex": font_size / 2, "ch": font_size / 2}
    unit = None if value is None else (_PIXELS | relative).get(value[2].lower())
    return None if value is None or unit is None else to_float(value[1]) * unit


def parse_transform(text: str, *, is_css: bool) -> Transform | None:
    """A list of transforms as one matrix; None where it is not one.

    Args:
        text: the list.
        is_css: whether angles and lengths need units, as they do in a style and not in an attribute.
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


# Of each transform, the kinds of its arguments (numbers, angles, lengths) and how many it may have.
_TRANSFORMS = {
    "matrix": ("nnnnnn", (6,)),
    "translate": ("ll", (1, 2)),
    "scale": ("nn", (1, 2)),
    "rotate": ("all", (1, 3)),
    "skew": ("aa", (1, 2)),
}
_UNITS = {"n": {"": 1.0}, "a": _RADIANS, "l": _PIXELS}


def _parse_function(name: str, text: str, is_css: bool) -> Transform | None:
    """The matrix of one transform; None where there is none of this name and these arguments."""
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
        # Along the other axis, nothing changes.
        numbers.insert("YX".index(name[-1]), 1.0 if name.startswith("scale") else 0.0)
    return getattr(Identity, name.rstrip("XY"))(*numbers)


def parse_view_box(text: str | None) -> ViewBox | None:
    """A view box's corner, width and height; None where there is none that can be used."""
    numbers = [to_float(number) for number in _NUMBERS.findall((text or "")[:1000])]
    if len(numbers) != 4 or not (numbers[2] > 0 and numbers[3] > 0):
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]


def view_box_matrix(view_box: ViewBox, width: float, height: float, aspect: str | None) -> Transform:
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
    shift_x, shift_y = (width - box_width * scale_x) * place[0], (height - box_height * scale_y) * place[1]
    return Identity.translate(shift_x, shift_y).scale(scale_x, scale_y).translate(-x, -y)
