"""The page: HTML with everything in it, and nothing that is fetched."""

import base64
from typing import Any

from markupsafe import Markup

from sgloc.inference.sketches import Polylines
from sgloc.report.latent import color_of, draw_map
from sgloc.report.sections import Shown
from sgloc.sketch.svg.write import to_svg
from sgloc.templates import fill

_THUMBNAIL = 92
# Categories beyond these are not listed under the map.
_MOST_NAMES = 40


def render_page(
    title: str,
    facts: list[tuple[str, str]],
    plots: list[tuple[str, str]],
    tables: list[dict[str, Any]],
    shown: Shown,
) -> str:
    """The page as HTML.

    Args:
        title: of the page.
        facts: name and value, for the top.
        plots: name and SVG of each plot of the training; none: the run has no metrics.
        tables: of results.json; none: the run has not been evaluated.
        shown: the model's drawings.
    """
    values = {"title": title, "facts": facts, "plots": plots, "tables": tables, "shown": shown}
    functions = {"thumbnail": _thumbnail, "data_url": _data_url, "draw_map": draw_map, "color_of": color_of}
    return fill("report/page.html", most_names=_MOST_NAMES, **values, **functions)


def _thumbnail(sketch: Polylines) -> Markup:
    return Markup(to_svg(sketch, size=_THUMBNAIL, stroke_width=1.6))


def _data_url(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
