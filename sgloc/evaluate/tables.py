"""Tables of an evaluation's results (METHOD 10)."""

from typing import Any

from sgloc.evaluate.metrics import all_metrics

# Prefix of a metric's name when it measures the sketches as given to the model.
OF_GIVEN = "given_"
_NOTE = (
    "Shares are in percent; distances of strokes from their right places are in percent of the sketch's size; brackets "
    "hold 95 % bootstrap intervals. The rows 'as given' apply the same metrics to the model's input sketches, which "
    "for synthesis are the originals themselves."
)


def tables(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return tables, each with a title and rows of cells, of which the first is the header.

    The first table covers all sketches and has an empty title; one table per task follows, with a row per category.

    Args:
        tasks: the field `tasks` of results.json.
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
    """Format all tables of results.json as Markdown."""
    blocks = [f"# {results['model']['checkpoint']} on {results['data']['path']}", _NOTE]
    for table in results["tables"]:
        blocks += [f"## {table['title']}"] if table["title"] else []
        blocks.append(_markdown_table(table["rows"]))
    return "\n\n".join(blocks) + "\n"


def overall(results: dict[str, Any]) -> str:
    """Format only the table over all sketches, as Markdown."""
    return _markdown_table(results["tables"][0]["rows"])


def _markdown_table(rows: list[list[str]]) -> str:
    header, *others = rows
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *others))
