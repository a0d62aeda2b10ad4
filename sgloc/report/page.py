"""The page: HTML with everything in it, and nothing that is fetched."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sgloc.evaluate.results import overall_rows, table_rows
from sgloc.inference.sketches import Polylines
from sgloc.report.latent import color_of, draw_map
from sgloc.report.sections import Retrieval, Shown
from sgloc.sketch.render import to_svg

_STYLE = """
:root { color-scheme: light; --ink: #1c2330; --soft: #5a6475; --line: #dfe3ea; --good: #117a3d; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #f5f6f9; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 0 0 4px; }
p { color: var(--soft); margin: 2px 0 12px; max-width: 78ch; }
section { background: white; border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin-top: 18px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 10px 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: 12.5px; margin: 8px 0; } .scroll { overflow-x: auto; }
th, td { padding: 4px 7px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.given td { color: var(--soft); } img { max-width: 100%; height: auto; }
.grid { display: grid; grid-template-columns: 118px repeat(auto-fill, 92px); gap: 6px; align-items: center; }
.row { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin-bottom: 6px; }
.row > span, .label { width: 112px; color: var(--soft); font-size: 13px; }
figure { margin: 0; width: 92px; } figcaption { font-size: 11.5px; color: var(--soft); text-align: center; }
figure svg { width: 92px; height: 92px; border: 1px solid var(--line); border-radius: 6px; display: block; }
figure.hit svg { border: 2px solid var(--good); }
.map svg { width: 100%; height: auto; border: 1px solid var(--line); border-radius: 8px; }
.legend { display: flex; flex-wrap: wrap; gap: 3px 14px; font-size: 13px; margin-top: 8px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 5px; }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--soft); }
"""
_THUMBNAIL = 92
# Categories beyond these are not listed under the map.
_MOST_NAMES = 40


@dataclass(frozen=True)
class Page:
    """What a page says.

    Attributes:
        title: of the page.
        facts: name and value, for the top.
        losses, speed: SVG of the curves; empty: the run has no metrics.
        results: of `sgloc evaluate`; None: it has not been evaluated.
        shown: the model's drawings.
    """

    title: str
    facts: list[tuple[str, str]]
    losses: str
    speed: str
    results: dict[str, Any] | None
    shown: Shown

    def html(self) -> str:
        """The page."""
        sections = [
            self._training(),
            self._redrawings(),
            self._metrics(),
            self._retrievals(),
            self._map(),
            self._path(),
        ]
        facts = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in self.facts)
        # Nothing may be fetched, and nothing run.
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,"><title>{html.escape(self.title)}</title><style>{_STYLE}</style></head>\n'
            f"<body><main><h1>{html.escape(self.title)}</h1><dl>{facts}</dl>\n"
            + "\n".join(section for section in sections if section)
            + "\n</main></body></html>\n"
        )

    def _training(self) -> str:
        if not self.losses:
            return ""
        pictures = _image(self.losses, "losses over the steps") + _image(self.speed, "speed over the steps")
        return _section("Training", "Losses on the training and the validation drawings, and speed.", pictures)

    def _redrawings(self) -> str:
        ones = self.shown.redrawings
        rows = (
            ("original", [one.original for one in ones]),
            ("strokes moved", [one.disturbed for one in ones]),
            ("put back", [one.put_back for one in ones]),
            ("redrawn", [one.redrawn for one in ones]),
        )
        captions = [one.category for one in ones]
        body = "".join(
            _row(name, (_figure(sketch, caption) for sketch, caption in zip(sketches, captions, strict=True)))
            for name, sketches in rows
        )
        text = (
            f"Test drawings that the model has never seen, every stroke but the first moved by r = "
            f"{self.shown.disturb:g}. Put back: the same strokes, moved rigidly to where the model draws them; "
            "redrawn: the model's own drawing."
        )
        return _section("Putting strokes back", text, body)

    def _metrics(self) -> str:
        if self.results is None:
            text = "Not measured yet: `sgloc evaluate` writes into the run's folder `evaluated`, which a report shows."
            return _section("Rec, Ret and distances", text, "")
        body = _table("task", overall_rows(self.results))
        for task in self.results["tasks"]:
            inner = _table("category", table_rows(task))
            body += f"<details><summary>{html.escape(task['task'])}, by category</summary>{inner}</details>"
        text = (
            "Shares in percent; distances of strokes from their right places in percent of the sketch's size; in "
            "brackets 95 % intervals by the bootstrap. Grey: the sketches as the model was given them."
        )
        return _section("Rec, Ret and distances", text, body)

    def _retrievals(self) -> str:
        body = "".join(_retrieval(one) for one in self.shown.retrievals)
        text = (
            f"What was redrawn is encoded again, and the originals with the nearest codes are looked up among "
            f"{len(self.shown.sketches):,} test drawings. Green: its own."
        )
        return _section("Finding the original", text, body) if body else ""

    def _map(self) -> str:
        shown = self.shown
        svg = draw_map(shown.map.places, shown.sketches, shown.labels, shown.names)
        present = sorted(set(shown.labels))
        marks = ((color_of(label, len(shown.names)), shown.names[label]) for label in present[:_MOST_NAMES])
        legend = "".join(f'<span><i style="background:{color}"></i>{html.escape(name)}</span>' for color, name in marks)
        first, second = shown.map.shares
        text = (
            f"The codes of {len(shown.sketches):,} test drawings in the plane in which they differ most: its two "
            f"directions have {first:.0%} and {second:.0%} of the variance."
        )
        return _section("The map of codes", text, f'<div class="map">{svg}</div><div class="legend">{legend}</div>')

    def _path(self) -> str:
        first, *between, last = self.shown.path
        figures = [_figure(first, "drawing"), *(_figure(one, "") for one in between), _figure(last, "drawing")]
        text = "Drawn from codes on the straight line between those of two test drawings."
        return _section("Between two drawings", text, f'<div class="row">{"".join(figures)}</div>')


def _section(title: str, text: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>{body}</section>"


def _image(svg: str, description: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/svg+xml;base64,{data}">'


def _figure(sketch: Polylines, caption: str, kind: str = "") -> str:
    svg = to_svg(sketch, size=_THUMBNAIL, stroke_width=1.6)
    label = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure{f' class={kind}' if kind else ''}>{svg}{label}</figure>"


def _row(name: str, figures: Iterable[str]) -> str:
    return f'<div class="row"><span>{html.escape(name)}</span>{"".join(figures)}</div>'


def _retrieval(one: Retrieval) -> str:
    found = [
        _figure(sketch, f"{place + 1}", "hit" if place == one.hit else "") for place, sketch in enumerate(one.found)
    ]
    return _row("redrawn, original, nearest", [_figure(one.query, "redrawn"), _figure(one.own, "original"), *found])


def _table(first: str, rows: Sequence[Sequence[str]]) -> str:
    header, *others = rows
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in (first, *header[1:]))
    body = "".join(
        f"<tr{' class=given' if row[0] == 'as given' else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in others
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
