"""What an SVG shows: its shapes as they are painted, and a count of all that is left out."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from sgloc.sketch.svg.css import Styles
from sgloc.sketch.svg.measures import (
    Matrix,
    parse_length,
    parse_number,
    parse_numbers,
    parse_transform,
    parse_view_box,
    translation,
    view_box_matrix,
)
from sgloc.sketch.svg.paint import INHERITED, is_visible_paint
from sgloc.sketch.svg.paths import Chain, ellipse, flattened, parse_path, polyline, rectangle, transformed
from sgloc.sketch.svg.tree import Element, UnreadableError

SHAPES = frozenset({"path", "rect", "circle", "ellipse", "line", "polyline", "polygon"})
_GROUPS = frozenset({"g", "a", "switch", "svg"})
# What is drawn and is no line, by what it is called.
_OTHERS = {
    "text": "text",
    "image": "image",
    "foreignObject": "foreign object",
    "video": "video",
    "canvas": "canvas element",
    "iframe": "frame",
}
# What changes the place of what stands inside an element.
_PLACING = frozenset({*INHERITED, "font-size", "opacity", "transform"})
# Values that leave a property that is inherited as it is.
_NOT_SAID = frozenset({"", "inherit", "unset", "revert", "revert-layer"})
_FONT_SIZE = 16.0
# How finely a shape is measured, as a share of its size.
_FINE = 1e-4
_MOST_WORK = 50_000
_MOST_SHAPES = 10_000
_MOST_CHARACTERS = 5_000_000
_MOST_CURVES = 100_000


@dataclass(frozen=True)
class Painted:
    """A shape that is seen.

    Attributes:
        chains: in pixels.
        is_stroked: whether a line along it is seen.
        stroke_width: of that line, in pixels.
    """

    chains: list[Chain]
    is_stroked: bool
    stroke_width: float


@dataclass
class Scene:
    """What an SVG shows.

    Attributes:
        shapes: in the order in which they are painted.
        left_out: what else there is, counted by what it is called (one of each).
        page: corner, width and height, in pixels; None where the file does not say.
    """

    shapes: list[Painted] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    page: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class _Place:
    """Where an element stands among those that are drawn.

    Attributes:
        matrix: from its coordinates to pixels.
        viewport: width and height that percentages refer to.
        style: the properties that it inherits.
        font_size: in user units.
        is_opaque: whether nothing around it has an opacity of 0.
        uses: what it is drawn as a copy of, and what that is a copy of.
        size: width and height that a use gives to what it draws.
    """

    matrix: Matrix
    viewport: tuple[float, float]
    style: Mapping[str, str]
    font_size: float = _FONT_SIZE
    is_opaque: bool = True
    uses: tuple[Element, ...] = ()
    size: tuple[str | None, str | None] = (None, None)

    def length(self, text: str | None, axis: int | None = None) -> float | None:
        """A length in user units; percentages are of the viewport's width (axis 0), height (1) or diagonal."""
        width, height = self.viewport
        whole = math.hypot(width, height) / math.sqrt(2) if axis is None else self.viewport[axis]
        return parse_length(text, whole, self.font_size)


def read_scene(root: Element) -> Scene:
    """What an SVG shows.

    Raises:
        UnreadableError: if a copy contains itself, or copies and styles make more of the file than any drawing needs.
    """
    return _Walk(root).run()


class _Walk:
    """One walk through an SVG, every element met as often as it is drawn."""

    def __init__(self, root: Element) -> None:
        self._root = root
        self._work = self._characters = self._curves = 0
        elements = list(root.walk())
        sheets = (element.text for element in elements if element.tag == "style")
        self._styles = Styles(sheets, self._spend, self._take_text)
        self._ids: dict[str, Element] = {}
        for element in elements:
            self._ids.setdefault(element.attributes.get("id", ""), element)
        self._unseen = {element for element in elements if element.tag in SHAPES}
        self._outlines: dict[Element, list[Chain]] = {}
        self._transforms: dict[Element, Matrix | None] = {}
        self._scene = Scene()

    def run(self) -> Scene:
        stack = [(self._root, _Place(np.eye(3), (0.0, 0.0), INHERITED))]
        while stack:
            element, place = stack.pop()
            self._spend(1)
            stack += reversed(self._visit(element, place))
        self._scene.left_out["shape inside definitions"] += len(self._unseen)
        return self._scene

    def _spend(self, amount: int) -> None:
        self._work += amount
        if self._work > _MOST_WORK:
            raise UnreadableError(f"draws more than {_MOST_WORK:,} elements, copies counted; simplify it first")

    def _take_text(self, text: str) -> None:
        """Count a text that is about to be taken apart."""
        self._characters += len(text)
        if self._characters > _MOST_CHARACTERS:
            raise UnreadableError(
                f"has more than {_MOST_CHARACTERS:,} characters of paths, styles and transforms; simplify it first"
            )

    def _visit(self, element: Element, place: _Place) -> list[tuple[Element, _Place]]:
        """Take in an element; what is to be visited next, in the order of the file."""
        tag = element.tag
        is_copy = bool(place.uses) and place.uses[-1] is element
        if tag not in SHAPES | _GROUPS | _OTHERS.keys() | {"use"} and not (tag == "symbol" and is_copy):
            return []
        style = self._styles.of(element)
        if style.get("display", "").lower() == "none":
            self._hide(element)
            return []
        size = place.size if is_copy else (None, None)
        if place.size != (None, None):
            place = replace(place, size=(None, None))
        if not _PLACING.isdisjoint(style):
            place = self._inside(element, style, place)
        if tag in _OTHERS:
            self._scene.left_out[_OTHERS[tag]] += 1
            return []
        if tag in SHAPES:
            self._paint(element, style, place)
            return []
        if tag == "use":
            return self._copy(element, style, place)
        if tag in ("svg", "symbol"):
            shown = self._open(element, style, place, size)
            if shown is None:
                self._hide(element)
                return []
            place = shown
        children = element.children if tag != "switch" else self._switched(element)
        return [(child, place) for child in children]

    def _hide(self, element: Element) -> None:
        """Count the shapes of an element that is not shown."""
        for one in element.walk():
            self._spend(1)
            if one.tag in SHAPES:
                self._unseen.discard(one)
                self._scene.left_out["hidden shape"] += 1

    def _inside(self, element: Element, style: Mapping[str, str], place: _Place) -> _Place:
        """The place of what stands inside an element, its own transform applied."""
        own = {name: style[name] for name in INHERITED if style.get(name, "").lower() not in _NOT_SAID}
        own = {name: INHERITED[name] if value.lower() == "initial" else value for name, value in own.items()}
        inherited = {**place.style, **own} if own else place.style
        font_size = parse_length(style.get("font-size"), place.font_size, place.font_size)
        font_size = place.font_size if font_size is None else font_size
        is_opaque = place.is_opaque and parse_number(style.get("opacity"), 1.0) > 0
        place = replace(place, style=inherited, font_size=font_size, is_opaque=is_opaque)
        if "stroke-width" in own:
            # What is inherited is the length, whatever the font of those that inherit it.
            width = place.length(own["stroke-width"])
            width = parse_length(INHERITED["stroke-width"], 1, 1) if width is None or width < 0 else width
            place = replace(place, style={**place.style, "stroke-width": repr(width)})
        if "transform" not in style:
            return place
        if element not in self._transforms:
            self._take_text(style["transform"])
            self._transforms[element] = parse_transform(style["transform"], is_css=False)
        matrix = self._transforms[element]
        if matrix is None:
            self._scene.left_out["transform that cannot be read"] += 1
            return place
        x, y = self._origin(element, style, place)
        return replace(place, matrix=place.matrix @ translation(x, y) @ matrix @ translation(-x, -y))

    def _origin(self, element: Element, style: Mapping[str, str], place: _Place) -> tuple[float, float]:
        """The point that an element's transform leaves where it is, were it but a turn."""
        words = style.get("transform-origin", "").lower().split()
        if not words:
            return 0.0, 0.0
        if len(words) == 1:
            words = ["center", *words] if words[0] in ("top", "bottom") else [*words, "center"]
        elif words[0] in ("top", "bottom") or words[1] in ("left", "right"):
            words = words[1::-1]
        corner, size = np.zeros(2), np.array(place.viewport)
        if style.get("transform-box", "").lower() in ("fill-box", "stroke-box") and element.tag in SHAPES:
            chains = self._outline(element, style, place)
            if chains:
                points = np.concatenate([flattened(chain, _FINE * float(np.ptp(chain)) or 1.0) for chain in chains])
                corner, size = points.min(0), np.ptp(points, axis=0)
        shares = {"left": "0%", "top": "0%", "center": "50%", "right": "100%", "bottom": "100%"}
        lengths = [
            parse_length(shares.get(word, word), float(size[axis]), place.font_size) or 0.0
            for axis, word in enumerate(words[:2])
        ]
        return float(corner[0]) + lengths[0], float(corner[1]) + lengths[1]

    def _switched(self, element: Element) -> list[Element]:
        """The one child of a switch that is shown: the first that needs no extension."""
        for child in element.children:
            languages = child.attributes.get("systemLanguage")
            is_english = languages is None or any(one.strip().startswith("en") for one in languages.split(","))
            if child.tag and is_english and not child.attributes.get("requiredExtensions"):
                return [child]
        return []

    def _copy(self, element: Element, style: Mapping[str, str], place: _Place) -> list[tuple[Element, _Place]]:
        """What a use draws."""
        address = next((style[name] for name in ("href", "xlink:href") if name in style), "")
        target = self._ids.get(address[1:]) if address.startswith("#") and len(address) > 1 else None
        if target is None:
            self._scene.left_out["copy of what is not in the file"] += 1
            return []
        if target in place.uses:
            raise UnreadableError(f"has a copy of {address[:40]!r} inside itself; remove that use element")
        x, y = place.length(style.get("x"), 0) or 0.0, place.length(style.get("y"), 1) or 0.0
        inside = replace(
            place,
            matrix=place.matrix @ translation(x, y),
            uses=(*place.uses, target),
            size=(style.get("width"), style.get("height")),
        )
        return [(target, inside)]

    def _open(
        self, element: Element, style: Mapping[str, str], place: _Place, size: tuple[str | None, str | None]
    ) -> _Place | None:
        """The place inside an svg or symbol element; None where it is too small to show anything."""
        view_box = parse_view_box(style.get("viewBox"))
        sizes = [given or style.get(name) for given, name in zip(size, ("width", "height"), strict=True)]
        if element is self._root and not place.uses:
            return self._open_page(style, place, view_box, sizes)
        x, y = place.length(style.get("x"), 0) or 0.0, place.length(style.get("y"), 1) or 0.0
        width, height = (
            place.viewport[axis] if (found := place.length(text, axis)) is None else found
            for axis, text in enumerate(sizes)
        )
        if width <= 0 or height <= 0:
            return None
        matrix = place.matrix @ translation(x, y)
        if view_box is None:
            return replace(place, matrix=matrix, viewport=(width, height))
        inner = view_box_matrix(view_box, width, height, style.get("preserveAspectRatio"))
        return replace(place, matrix=matrix @ inner, viewport=view_box[2:])

    def _open_page(
        self,
        style: Mapping[str, str],
        place: _Place,
        view_box: tuple[float, float, float, float] | None,
        sizes: list[str | None],
    ) -> _Place:
        """The place inside the root, whose view box is its own measure where it has no size that is known."""
        # A share of a page that nobody knows is no size.
        known = [None if text and text.strip().endswith("%") else place.length(text) for text in sizes]
        width, height = (length if length is None or length > 0 else None for length in known)
        if view_box is None:
            if width is not None and height is not None:
                self._scene.page = (0.0, 0.0, width, height)
            return replace(place, viewport=(width or 0.0, height or 0.0))
        if width is None and height is None:
            self._scene.page = view_box
            return replace(place, viewport=view_box[2:])
        ratio = view_box[3] / view_box[2]
        width = (height or 0.0) / ratio if width is None else width
        height = width * ratio if height is None else height
        self._scene.page = (0.0, 0.0, width, height)
        inner = view_box_matrix(view_box, width, height, style.get("preserveAspectRatio"))
        return replace(place, matrix=place.matrix @ inner, viewport=view_box[2:])

    def _paint(self, element: Element, style: Mapping[str, str], place: _Place) -> None:
        """Take in a shape, if it is seen."""
        self._unseen.discard(element)
        inherited = place.style
        is_shown = place.is_opaque and inherited["visibility"].lower() not in ("hidden", "collapse")
        width = float(inherited["stroke-width"])
        is_stroked = is_shown and width > 0 and self._is_painted("stroke", inherited)
        is_filled = is_shown and self._is_painted("fill", inherited)
        chains = self._outline(element, style, place)
        if not is_filled and inherited["stroke-linecap"].lower() == "butt":
            # A dot is seen only where the ends of lines are round or square.
            chains = [chain for chain in chains if np.ptp(chain, axis=0).any()]
        scale = math.sqrt(abs(float(np.linalg.det(place.matrix[:2, :2]))))
        if not chains or not (is_stroked or is_filled) or scale == 0:
            self._scene.left_out["hidden shape"] += 1
            return
        self._curves += sum(map(len, chains)) // 3
        if len(self._scene.shapes) >= _MOST_SHAPES:
            raise UnreadableError(f"draws more than {_MOST_SHAPES:,} shapes, copies counted; simplify it first")
        if self._curves > _MOST_CURVES:
            raise UnreadableError(f"has more than {_MOST_CURVES:,} points and curves; simplify it first")
        if any(style.get(name, "none") != "none" for name in ("marker", "marker-start", "marker-mid", "marker-end")):
            self._scene.left_out["set of arrowheads"] += 1
        placed = [transformed(chain, place.matrix) for chain in chains]
        self._scene.shapes.append(Painted(placed, is_stroked, width * scale))

    def _is_painted(self, kind: str, style: Mapping[str, str]) -> bool:
        return parse_number(style[f"{kind}-opacity"], 1.0) > 0 and is_visible_paint(style[kind], style, self._ids)

    def _outline(self, element: Element, style: Mapping[str, str], place: _Place) -> list[Chain]:
        """A shape's chains, in its own coordinates."""
        known = self._outlines.get(element)
        if known is not None:
            return known
        if element.tag not in ("path", "polyline", "polygon"):
            # Their sizes may be shares of the viewport, which differs from copy to copy.
            return _basic_shape(element.tag, style, place)
        data = style.get("d" if element.tag == "path" else "points", "")
        self._take_text(data)
        if element.tag == "path":
            chains, is_whole = parse_path(data, _MOST_CURVES + 1)
            if not is_whole and data != "none":
                self._scene.left_out["end of a broken path"] += 1
        else:
            chains = polyline(parse_numbers(data, 2 * _MOST_CURVES + 2), is_closed=element.tag == "polygon")
        self._outlines[element] = chains
        return chains


def _basic_shape(tag: str, style: Mapping[str, str], place: _Place) -> list[Chain]:
    """The chain of a line, rectangle, circle or ellipse, unless it has no size."""

    def length(name: str, axis: int | None) -> float | None:
        found = place.length(style.get(name), axis)
        return None if found is None or (found < 0 and axis is None) else found

    def plain(name: str, axis: int) -> float:
        return place.length(style.get(name), axis) or 0.0

    if tag == "line":
        numbers = [plain(name, axis) for axis, name in ((0, "x1"), (1, "y1"), (0, "x2"), (1, "y2"))]
        return polyline(numbers, is_closed=False)
    if tag == "circle":
        radius = length("r", None) or 0.0
        return [ellipse(plain("cx", 0), plain("cy", 1), radius, radius)] if radius > 0 else []
    radii = [place.length(style.get(name), axis) for axis, name in enumerate(("rx", "ry"))]
    radii = [None if radius is not None and radius < 0 else radius for radius in radii]
    radius_x, radius_y = (own if own is not None else other or 0.0 for own, other in (radii, radii[::-1]))
    if tag == "ellipse":
        is_seen = radius_x > 0 and radius_y > 0
        return [ellipse(plain("cx", 0), plain("cy", 1), radius_x, radius_y)] if is_seen else []
    width, height = plain("width", 0), plain("height", 1)
    if not (width > 0 and height > 0):
        return []
    return [rectangle(plain("x", 0), plain("y", 1), width, height, radius_x, radius_y)]
