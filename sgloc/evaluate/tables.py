"""The results of an evaluation as tables (METHOD 10)."""

from typing import Any

from sgloc.evaluate.metrics import all_metrics

Table = list[list[str]]
# What stands before the name of a metric of the sketches as they were given.
OF_GIVEN = "given_"
NOTE = (
    "Shares in percent, distances of strokes from their right places in percent of the sketch's size; in brackets "
    "95 % intervals by the bootstrap. The rows 'as given' measure the sketches that the model was given to redraw "
    "(for synthesis the originals themselves) in the same way."
)


def markdown(results: dict[str, Any]) -> str:
    """One table over all sketches, and one a task with a row a category.

    Args:
        results: of results.json.
    """
    title = f"# {results['model']['checkpoint']} on {results['data']['path']}"
    blocks = [title, NOTE, _markdown_table(overall_table(results))]
    for found in results["tasks"]:
        blocks += [f"## {found['task']}", _markdown_table(category_table(found))]
    return "\n\n".join(blocks) + "\n"


def overall(results: dict[str, Any]) -> str:
    """The table over all sketches alone."""
    return _markdown_table(overall_table(results))


def overall_table(results: dict[str, Any]) -> Table:
    """The cells of the table over all sketches, the header first."""
    rows = [["task", *_header()]]
    for found in results["tasks"]:
        rows += [[found["task"], *_cells(found, "")], ["as given", *_cells(found, OF_GIVEN)]]
    return rows


def category_table(found: dict[str, Any]) -> Table:
    """The cells of a task's table by category, the header first."""
    return [["category", *_header()], *([name, *_cells(one, "")] for name, one in found["categories"].items())]


def _header() -> list[str]:
    return ["sketches", *(title for metric in all_metrics() for title in metric.header), "nothing drawn"]


def _cells(found: dict[str, Any], prefix: str) -> list[str]:
    cells = [str(found["sketches"])]
    for metric in all_metrics():
        summary = found.get(f"{prefix}{metric.name}")
        # It was not measured, or did not exist when the file was written.
        cells += ["-"] * len(metric.header) if summary is None else metric.cells(summary)
    return [*cells, "" if prefix else str(found["empty"])]


def _markdown_table(rows: Table) -> str:
    header, *others = rows
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *others))
