"""Rec, Ret and distances of a whole test set, with confidence intervals, as JSON and as tables (METHOD 10)."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sgloc.evaluate.bootstrap import Estimate, bootstrap_mean, bootstrap_ratio

RET_AT = (1, 10, 50)


@dataclass(frozen=True)
class Outcome:
    """What a task gave for each of n sketches.

    Attributes:
        task: its name.
        label: int64 [n], the sketches' categories.
        rank: int64 [n], how many originals are nearer to what was drawn than its own.
        given_rank: the same of the sketch as the model was given it.
        category, given_category: int64 [n], what the classifier takes both for, -1 for what cannot be drawn; None
            without a classifier.
        moved, left, strokes: [n], see `sgloc.evaluate.measure.Measuring.measure`.
        is_empty: bool [n], whether nothing was drawn.
    """

    task: str
    label: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    given_rank: npt.NDArray[np.int64]
    category: npt.NDArray[np.int64] | None
    given_category: npt.NDArray[np.int64] | None
    moved: npt.NDArray[np.float64]
    left: npt.NDArray[np.float64]
    strokes: npt.NDArray[np.int64]
    is_empty: npt.NDArray[np.bool_]

    def of(self, category: int) -> "Outcome":
        """The sketches of one category."""
        chosen = self.label == category
        arrays = {
            field.name: getattr(self, field.name)[chosen]
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        return dataclasses.replace(self, **arrays)

    def summary(self, num_resamples: int, seed: int) -> dict[str, Any]:
        """The metrics, each a value between 0 and 1, or in percent of the sketch's size, with its 95 % interval."""

        def mean(values: npt.NDArray[np.bool_]) -> dict[str, Any]:
            return _fields(bootstrap_mean(values, num_resamples=num_resamples, seed=seed))

        def distance(sums: npt.NDArray[np.float64]) -> dict[str, Any]:
            counts = self.strokes.astype(np.float64)
            return _fields(bootstrap_ratio(sums, counts, num_resamples=num_resamples, seed=seed))

        ranks = {"ret": self.rank, "given_ret": self.given_rank}
        found: dict[str, Any] = {"sketches": len(self.label), "empty": int(self.is_empty.sum())}
        for name, taken_for in (("rec", self.category), ("given_rec", self.given_category)):
            found[name] = None if taken_for is None else mean(taken_for == self.label)
        found |= {name: {str(at): mean(rank < at) for at in RET_AT} for name, rank in ranks.items()}
        return found | {"distance": distance(self.moved), "given_distance": distance(self.left)}


def _fields(estimate: Estimate) -> dict[str, Any]:
    return dataclasses.asdict(estimate)


def summarise(outcomes: list[Outcome], categories: list[str], num_resamples: int, seed: int) -> list[dict[str, Any]]:
    """The metrics of each task: over all sketches, and by category."""
    return [
        {
            "task": outcome.task,
            **outcome.summary(num_resamples, seed),
            "categories": {
                name: outcome.of(number).summary(num_resamples, seed)
                for number, name in enumerate(categories)
                if (outcome.label == number).any()
            },
        }
        for outcome in outcomes
    ]


_HEADER = ["sketches", "Rec", *(f"Ret top-{at}" for at in RET_AT), "distance", "nothing drawn"]


def markdown(results: dict[str, Any]) -> str:
    """The tables: one over all sketches, and one a task with a row a category."""
    lines = [
        f"# {results['model']['checkpoint']} on {results['data']['path']}",
        "",
        "Shares in percent, distances of strokes from their right places in percent of the sketch's size; in brackets "
        "95 % intervals by the bootstrap. The rows 'as given' measure the sketches that the model was given to redraw "
        "(for synthesis the originals themselves) in the same way.",
        "",
        *_markdown_table("task", overall_rows(results)),
    ]
    for found in results["tasks"]:
        lines += ["", f"## {found['task']}", "", *_markdown_table("category", table_rows(found))]
    return "\n".join(lines) + "\n"


def overall(results: dict[str, Any]) -> str:
    """The table over all sketches alone."""
    return "\n".join(_markdown_table("task", overall_rows(results)))


def overall_rows(results: dict[str, Any]) -> list[list[str]]:
    """The cells of the table over all sketches, the header first."""
    rows = [["", *_HEADER]]
    for found in results["tasks"]:
        rows += [[found["task"], *_cells(found, "")], ["as given", *_cells(found, "given_")]]
    return rows


def table_rows(found: dict[str, Any]) -> list[list[str]]:
    """The cells of a task's table by category, the header first."""
    return [["", *_HEADER], *([name, *_cells(one, "")] for name, one in found["categories"].items())]


def _cells(found: dict[str, Any], prefix: str) -> list[str]:
    shares = [found[f"{prefix}rec"], *found[f"{prefix}ret"].values()]
    distance = _cell(found[f"{prefix}distance"], 1)
    empty = "" if prefix else str(found["empty"])
    return [str(found["sketches"]), *(_cell(share, 100) for share in shares), distance, empty]


def _cell(estimate: dict[str, Any] | None, factor: float) -> str:
    if estimate is None or estimate["value"] is None:
        return "-"
    value, low, high = (factor * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _markdown_table(first: str, rows: list[list[str]]) -> list[str]:
    (_, *header), *others = rows
    rule = ["---", *("---:" for _ in header)]
    return [f"| {' | '.join(cells)} |" for cells in ([first, *header], rule, *others)]
