"""Templates: text files next to the code that fills them in."""

from pathlib import Path

import jinja2

# Values in HTML and SVG templates are escaped.
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(("html.jinja", "svg.jinja")),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)


def fill(name: str, **values: object) -> str:
    """Render a template.

    Args:
        name: path of the template in this package without ".jinja", such as "report/page.html".
        values: values of the template's variables.
    """
    return _ENVIRONMENT.get_template(f"{name}.jinja").render(**values)
