"""The results of an evaluation as tables (METHOD 10)."""

from typing import Any

from sgloc.evaluate.metrics import all_metrics

# What stands before the name of a metric of the sketches as they were given.
OF_GIVEN = "given_"
_NOTE = (
    "Shares in percent, distances of strokes from their right places in percent of the sketch's size; in brackets "
    "95 % intervals by the bootstrap. The rows 'as given' measure the sketches that the model was given to redraw "
    "(for synthesis the originals themselves) in the same way."
)


def tables(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The title and the rows of cells, the header first, of a table over all sketches, which has no title, and of one a
    task with a row a category.

    Args:
        tasks: of results.json.
    """
    header = ["sketches", *(title for metric in all_metrics() for title in metric.header), "nothing drawn"]
    overall = [["task", *header]]
    for found in tasks:
        overall += [[found["task"], *_cells(found, "")], ["as given", *_cells(found, OF_GIVEN)]]
    by_category = [
        {
            "title": found["task"],
            "rows": [["category", *header], *([name, *_cells(one, "")] for name, one in found["categories"].items())],
        }
        for found in tasks
    ]
    return [{"title": "", "rows": overall}, *by_category]


def _cells(found: dict[str, Any], prefix: str) -> list[str]:
    cells = [str(found["sketches"])]
    for metric in all_metrics():
        summary = found[f"{prefix}{metric.name}"]
        cells += ["-"] * len(metric.header) if summary is None else metric.cells(summary)
    return [*cells, "" if prefix else str(found["empty"])]


def markdown(results: dict[str, Any]) -> str:
    """All tables of results.json."""
    blocks = [f"# {results['model']['checkpoint']} on {results['data']['path']}", _NOTE]
    for table in results["tables"]:
        blocks += [f"## {table['title']}"] if table["title"] else []
        blocks.append(_markdown_table(table["rows"]))
    return "\n\n".join(blocks) + "\n"


def overall(results: dict[str, Any]) -> str:
    """The table over all sketches alone."""
    return _markdown_table(results["tables"][0]["rows"])


def _markdown_table(rows: list[list[str]]) -> str:
    header, *others = rows
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *others))
