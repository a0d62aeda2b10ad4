"""Whether a paint is seen."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from sgloc.sketch.svg.measures import parse_number
from sgloc.sketch.svg.tree import Element

# The properties that elements inherit and that matter to what is seen, with what they are where nothing says it.
INHERITED: Mapping[str, str] = MappingProxyType(
    {
        "fill": "black",
        "fill-opacity": "1",
        "stroke": "none",
        "stroke-width": "1.0",
        "stroke-opacity": "1",
        "stroke-linecap": "butt",
        "visibility": "visible",
        "color": "black",
    }
)
_SERVERS = frozenset({"linearGradient", "radialGradient", "pattern", "meshgradient", "hatch", "solidcolor"})
_ADDRESS = re.compile(r"url\(\s*['\"]?\s*#([^)'\"]*?)\s*['\"]?\s*\)(.*)", re.DOTALL | re.IGNORECASE)
_WITH_ALPHA = re.compile(r"(?:rgb|hsl)a?\((.*)\)", re.DOTALL)


def is_visible_paint(paint: str, style: Mapping[str, str], ids: Mapping[str, Element]) -> bool:
    """Whether a fill or stroke of this paint is seen.

    Args:
        paint: as it stands in the file.
        style: the inherited properties, for the colour that is current.
        ids: the file's elements by id, for gradients and patterns.
    """
    text = paint.strip().lower()
    address = _ADDRESS.match(paint.strip()[:1000])
    if address is not None:
        server = ids.get(address[1])
        if server is not None and server.tag in _SERVERS:
            return True
        return is_visible_paint(address[2], style, ids) if address[2].strip() else False
    if text == "currentcolor":
        color = style["color"].strip().lower()
        return color == "currentcolor" or is_visible_paint(color, style, ids)
    if text in ("none", "transparent"):
        return False
    if text.startswith("#"):
        return not (len(text) == 5 and text[4] == "0") and not (len(text) == 9 and text[7:] == "00")
    mixed = _WITH_ALPHA.fullmatch(text[:1000])
    if mixed is not None:
        parts = mixed[1].rpartition("/")[2].split() if "/" in mixed[1] else mixed[1].split(",")[3:]
        return not parts or parse_number(parts[-1], 1.0) > 0
    return True
