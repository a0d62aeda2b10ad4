"""Texts for people that stand in files of their own, beside the code that fills them in."""

from pathlib import Path

import jinja2

# Every value in a page or a picture is escaped.
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(("html.jinja", "svg.jinja")),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)


def fill(name: str, **values: object) -> str:
    """A template's text with values filled in.

    Args:
        name: of the template in this package, such as "report/page.html".
        values: by their names in the template.
    """
    return _ENVIRONMENT.get_template(f"{name}.jinja").render(**values)
