"""Visibility of fills and strokes."""

import re
from collections.abc import Mapping

from sgloc.sketch.svg.measures import parse_number
from sgloc.sketch.svg.tree import Element

# The inherited properties that affect visibility, with their initial values.
INHERITED = {"fill": "black", "stroke": "none", "color": "black", "visibility": "visible", "stroke-linecap": "butt"}
INHERITED |= dict.fromkeys(("fill-opacity", "stroke-opacity", "stroke-width"), "1")
_SERVERS = frozenset({"linearGradient", "radialGradient", "pattern", "meshgradient", "hatch", "solidcolor"})
_ADDRESS = re.compile(r"url\(\s*['\"]?\s*#([^)'\"]*?)\s*['\"]?\s*\)(.*)", re.DOTALL | re.IGNORECASE)
_NO_ALPHA = r"(?:-[\d.]+|\+?0*\.?0+)%?\s*"
_UNSEEN = re.compile(
    r"none|transparent|#...0|#.{6}00"
    rf"|(?:rgb|hsl)a?\((?:(?:[^,/]*,){{3}}|[^/]*/)\s*{_NO_ALPHA}\)",
    re.DOTALL | re.IGNORECASE,
)


def is_painted(kind: str, style: Mapping[str, str], ids: Mapping[str, Element]) -> bool:
    """Return whether the fill or the stroke of a shape is visible.

    Args:
        kind: "fill" or "stroke".
        style: the shape's own and inherited properties.
        ids: the file's elements by id, for gradients and patterns.
    """
    if parse_number(style[f"{kind}-opacity"], 1.0) <= 0:
        return False
    paint = style[kind].strip()[:1000]
    address = _ADDRESS.match(paint)
    if address is not None:
        server = ids.get(address[1])
        if server is not None and server.tag in _SERVERS:
            return True
        paint = address[2].strip() or "none"
    if paint.lower() == "currentcolor":
        paint = style["color"].strip()[:1000]
    return not _UNSEEN.fullmatch(paint)
