"""The visible content of an SVG: shapes in painting order, and counts of everything left out."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from fontTools.misc.transform import Identity, Transform

from sgloc.sketch.svg import measures
from sgloc.sketch.svg.css import Styles
from sgloc.sketch.svg.limits import Limits, UnreadableError
from sgloc.sketch.svg.paint import INHERITED, is_painted
from sgloc.sketch.svg.paths import Chain, flattened, parse_path, transformed
from sgloc.sketch.svg.tree import Element, parse_tree

SHAPES = frozenset({"path", "rect", "circle", "ellipse", "line", "polyline", "polygon"})
_GROUPS = frozenset({"g", "a", "switch", "svg"})
# Elements that are drawn but contain no lines, with their names in notes.
_OTHERS = {"text": "text", "image": "image", "foreignObject": "foreign object"}
# Values that leave an inherited property unchanged.
_NOT_SAID = frozenset({"", "inherit", "unset", "revert", "revert-layer"})
_FONT_SIZE = 16.0
# Tolerance for measuring a shape, as a share of its size.
_FINE = 1e-4


@dataclass(frozen=True)
class Painted:
    """A visible shape.

    Attributes:
        chains: the outline, in pixels.
        is_stroked: whether its stroke is visible.
        stroke_width: width of the stroke, in pixels.
    """

    chains: list[Chain]
    is_stroked: bool
    stroke_width: float


@dataclass
class Scene:
    """The visible content of an SVG.

    Attributes:
        shapes: the visible shapes, in painting order.
        left_out: counts of everything else, by its name in the singular.
        page: corner, width and height of the page, in pixels; None if the file does not say.
    """

    shapes: list[Painted] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    page: measures.ViewBox | None = None


@dataclass(frozen=True)
class _Place:
    """The context in which an element is drawn.

    Attributes:
        style: inherited properties.
        matrix: maps the element's coordinates to pixels.
        viewport: the width and height that percentages refer to.
        font_size: in user units.
        stroke_width: in user units.
        is_opaque: whether no enclosing element has an opacity of 0.
        uses: targets of the enclosing use elements, outermost first.
        size: width and height that the innermost use element sets for its target.
    """

    style: Mapping[str, str]
    matrix: Transform = Identity
    viewport: tuple[float, float] = (0.0, 0.0)
    font_size: float = 16.0
    stroke_width: float = 1.0
    is_opaque: bool = True
    uses: tuple[Element, ...] = ()
    size: tuple[str | None, str | None] = (None, None)

    def length(self, text: str | None, axis: int | None = None) -> float | None:
        """Parse a length in user units; percentages refer to the viewport's width (axis 0), height (1) or diagonal."""
        whole = math.hypot(*self.viewport) / math.sqrt(2) if axis is None else self.viewport[axis]
        return measures.parse_length(text, whole, self.font_size)

    def lengths(self, style: Mapping[str, str], *names: str) -> list[float]:
        """Return the named lengths, alternately along x and y, in user units; 0 if a style has none."""
        return [self.length(style.get(name), number % 2) or 0.0 for number, name in enumerate(names)]


def read_scene(content: bytes, limits: Limits) -> Scene:
    """Read the visible content of an SVG.

    Args:
        content: the decompressed file.
        limits: the limits on the file.

    Raises:
        UnreadableError: if the file is not an SVG, an element is copied into itself, or a limit is exceeded.
    """
    return _Walk(parse_tree(content, limits), limits).run()


class _Walk:
    """A walk through an SVG that visits every element as often as it is drawn."""

    def __init__(self, root: Element, limits: Limits) -> None:
        self._root, self._limits = root, limits
        elements = list(root.walk())
        self._styles = Styles((element.text for element in elements if element.tag == "style"), limits)
        self._ids: dict[str, Element] = {}
        for element in elements:
            self._ids.setdefault(element.attributes.get("id", ""), element)
        self._unseen = {element for element in elements if element.tag in SHAPES}
        # Cached per viewport and font size, because relative lengths differ between copies.
        self._outlines: dict[tuple[Element, tuple[float, float], float], list[Chain]] = {}
        self._transforms: dict[Element, Transform | None] = {}
        self._scene = Scene()

    def run(self) -> Scene:
        stack = [(self._root, _Place(INHERITED))]
        while stack:
            element, place = stack.pop()
            self._limits.count("element")
            stack += reversed(self._visit(element, place))
        self._scene.left_out["shape inside definitions"] += len(self._unseen)
        return self._scene

    def _visit(self, element: Element, place: _Place) -> list[tuple[Element, _Place]]:
        """Process an element; return the elements to visit next, in document order."""
        tag = element.tag
        is_copy = bool(place.uses) and place.uses[-1] is element
        if tag not in SHAPES | _GROUPS | _OTHERS.keys() | {"use"} and not (tag == "symbol" and is_copy):
            return []
        style = self._styles.of(element)
        if style.get("display", "").lower() == "none":
            self._hide(element)
            return []
        place = self._inside(element, style, place)
        if tag in _OTHERS:
            self._scene.left_out[_OTHERS[tag]] += 1
            return []
        if tag in SHAPES:
            self._paint(element, style, place)
            return []
        if tag == "use":
            return self._copy(style, place)
        if tag in ("svg", "symbol"):
            shown = self._open(element, style, place, place.size if is_copy else (None, None))
            if shown is None:
                self._hide(element)
                return []
            place = shown
        children = element.children if tag != "switch" else self._switched(element)
        return [(child, place) for child in children]

    def _hide(self, element: Element) -> None:
        """Count the shapes inside a hidden element."""
        for one in element.walk():
            self._limits.count("element")
            if one.tag in SHAPES:
                self._unseen.discard(one)
                self._scene.left_out["hidden shape"] += 1

    def _inside(self, element: Element, style: Mapping[str, str], place: _Place) -> _Place:
        """Return the context inside an element, with its own style and transform applied."""
        own = {name: style[name] for name in INHERITED if style.get(name, "").lower() not in _NOT_SAID}
        own = {name: INHERITED[name] if value.lower() == "initial" else value for name, value in own.items()}
        font_size = measures.parse_length(style.get("font-size"), place.font_size, place.font_size)
        place = replace(
            place,
            style={**place.style, **own},
            font_size=place.font_size if font_size is None else font_size,
            is_opaque=place.is_opaque and measures.parse_number(style.get("opacity"), 1.0) > 0,
        )
        # Descendants inherit the computed length, whatever their font size.
        width = place.length(own.get("stroke-width"))
        if width is not None and width >= 0:
            place = replace(place, stroke_width=width)
        if "transform" not in style:
            return place
        if element not in self._transforms:
            self._limits.count("character", len(style["transform"]))
            self._limits.count("transform", style["transform"].count("("))
            self._transforms[element] = measures.parse_transform(style["transform"], is_css=False)
        matrix = self._transforms[element]
        if matrix is None:
            self._scene.left_out["transform with invalid syntax"] += 1
            return place
        x, y = self._origin(element, style, place)
        return replace(place, matrix=place.matrix.translate(x, y).transform(matrix).translate(-x, -y))

    def _origin(self, element: Element, style: Mapping[str, str], place: _Place) -> tuple[float, float]:
        """Return the origin of an element's transform."""
        if not style.get("transform-origin"):
            return 0.0, 0.0
        words = [*style["transform-origin"].lower().split(), "center"][:2]
        if words[0] in ("top", "bottom") or words[1] in ("left", "right"):
            words.reverse()
        (x, y), size = (0.0, 0.0), place.viewport
        if style.get("transform-box", "").lower() in ("fill-box", "stroke-box") and element.tag in SHAPES:
            chains = self._outline(element, style, place)
            if chains:
                points = np.concatenate([flattened(chain, _FINE * float(np.ptp(chain)) or 1.0) for chain in chains])
                (x, y), size = points.min(0).tolist(), np.ptp(points, axis=0).tolist()
        shares = {"left": "0%", "top": "0%", "center": "50%", "right": "100%", "bottom": "100%"}
        right, down = (
            measures.parse_length(shares.get(word, word), side, place.font_size) or 0.0
            for word, side in zip(words, size, strict=True)
        )
        return x + right, y + down

    def _switched(self, element: Element) -> list[Element]:
        """Return the child of a switch that is shown: the first for English that needs no extension."""
        for child in element.children:
            languages = child.attributes.get("systemLanguage", "en").split(",")
            is_english = any(language.strip().startswith("en") for language in languages)
            if child.tag and is_english and not child.attributes.get("requiredExtensions"):
                return [child]
        return []

    def _copy(self, style: Mapping[str, str], place: _Place) -> list[tuple[Element, _Place]]:
        """Return the target of a use element, to be drawn in its place."""
        address = style.get("href", style.get("xlink:href", ""))
        target = self._ids.get(address[1:]) if address.startswith("#") and len(address) > 1 else None
        if target is None:
            self._scene.left_out["copy of an element not in the file"] += 1
            return []
        if target in place.uses:
            raise UnreadableError(
                f"has a use element that copies {address[:40]!r} into itself; remove that use element"
            )
        matrix = place.matrix.translate(*place.lengths(style, "x", "y"))
        size = style.get("width"), style.get("height")
        return [(target, replace(place, matrix=matrix, uses=(*place.uses, target), size=size))]

    def _open(
        self, element: Element, style: Mapping[str, str], place: _Place, size: tuple[str | None, str | None]
    ) -> _Place | None:
        """Return the context inside an svg or symbol element, or None if its size is zero."""
        texts = [given or style.get(name) for given, name in zip(size, ("width", "height"), strict=True)]
        view_box = measures.parse_view_box(style.get("viewBox"))
        if element is self._root and not place.uses:
            # Ignore percentages: the size of the surrounding page is unknown.
            texts = [None if text is None or text.endswith("%") else text for text in texts]
            width, height = (max(place.length(text) or 0.0, 0.0) for text in texts)
            if view_box is not None:
                if not width and not height:
                    self._scene.page = view_box
                    return replace(place, viewport=view_box[2:])
                across, down = view_box[2:]
                width, height = width or height * across / down, height or width * down / across
            if width and height:
                self._scene.page = (0.0, 0.0, width, height)
        else:
            place = replace(place, matrix=place.matrix.translate(*place.lengths(style, "x", "y")))
            lengths = [place.length(text, axis) for axis, text in enumerate(texts)]
            width, height = (
                whole if length is None else length for length, whole in zip(lengths, place.viewport, strict=True)
            )
            if width <= 0 or height <= 0:
                return None
        if view_box is None:
            return replace(place, viewport=(width, height))
        inner = measures.view_box_matrix(view_box, width, height, style.get("preserveAspectRatio"))
        return replace(place, matrix=place.matrix.transform(inner), viewport=view_box[2:])

    def _paint(self, element: Element, style: Mapping[str, str], place: _Place) -> None:
        """Add a shape to the scene if it is visible."""
        self._unseen.discard(element)
        is_shown = place.is_opaque and place.style["visibility"].lower() not in ("hidden", "collapse")
        is_stroked = is_shown and place.stroke_width > 0 and is_painted("stroke", place.style, self._ids)
        is_filled = is_shown and is_painted("fill", place.style, self._ids)
        chains = self._outline(element, style, place)
        if not is_filled and place.style["stroke-linecap"].lower() == "butt":
            # With butt caps, a dot is invisible.
            chains = [chain for chain in chains if np.ptp(chain, axis=0).any()]
        matrix = place.matrix
        scale = math.sqrt(abs(matrix.xx * matrix.yy - matrix.xy * matrix.yx))
        if not chains or not (is_stroked or is_filled) or scale == 0:
            self._scene.left_out["hidden shape"] += 1
            return
        self._limits.count("shape")
        self._limits.count("curve", sum(map(len, chains)) // 3)
        if any(style.get(name, "none") != "none" for name in ("marker", "marker-start", "marker-mid", "marker-end")):
            self._scene.left_out["set of arrowheads"] += 1
        placed = [transformed(chain, matrix) for chain in chains]
        self._scene.shapes.append(Painted(placed, is_stroked, place.stroke_width * scale))

    def _outline(self, element: Element, style: Mapping[str, str], place: _Place) -> list[Chain]:
        """Return a shape's chains in its own coordinates."""
        key = (element, place.viewport, place.font_size)
        if key not in self._outlines:
            data = _path_data(element.tag, style, place)
            self._limits.count("character", len(data))
            self._outlines[key], is_whole = parse_path(data, self._limits)
            self._scene.left_out["end of a malformed path"] += not is_whole
        return self._outlines[key]


def _path_data(tag: str, style: Mapping[str, str], place: _Place) -> str:
    """Convert a shape to path data; empty if it has no size."""
    if tag == "path":
        return style.get("d", "").removeprefix("none")
    if tag in ("polyline", "polygon"):
        points = style.get("points")
        return f"M{points}{'z' if tag == 'polygon' else ''}" if points else ""
    if tag == "line":
        x1, y1, x2, y2 = place.lengths(style, "x1", "y1", "x2", "y2")
        return f"M{x1} {y1}L{x2} {y2}"
    names = [("r", None), ("r", None)] if tag == "circle" else [("rx", 0), ("ry", 1)]
    radii = [place.length(style.get(name), axis) for name, axis in names]
    radii = [None if radius is None or radius < 0 else radius for radius in radii]
    # A missing radius equals the other one.
    rx, ry = (own if own is not None else other or 0.0 for own, other in (radii, radii[::-1]))
    is_round = rx > 0 and ry > 0
    if tag in ("circle", "ellipse"):
        x, y = place.lengths(style, "cx", "cy")
        arc = f"A{rx} {ry} 0 0 1"
        return f"M{x + rx} {y}{arc} {x - rx} {y}{arc} {x + rx} {y}z" if is_round else ""
    x, y, width, height = place.lengths(style, "x", "y", "width", "height")
    right, bottom = x + width, y + height
    if width <= 0 or height <= 0:
        return ""
    if not is_round:
        return f"M{x} {y}H{right}V{bottom}H{x}z"
    rx, ry = min(rx, width / 2), min(ry, height / 2)
    arc = f"A{rx} {ry} 0 0 1"
    return (
        f"M{x + rx} {y}H{right - rx}{arc} {right} {y + ry}V{bottom - ry}{arc} {right - rx} {bottom}"
        f"H{x + rx}{arc} {x} {bottom - ry}V{y + ry}{arc} {x + rx} {y}z"
    )
