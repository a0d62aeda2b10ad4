"""Parity of a run's losses across numbers of ranks, accumulation and engines (DESIGN contract 3)."""

import itertools
from dataclasses import dataclass

from benchmarks.launched import ENGINES, RunOptions, engines_of, launcher, relative_difference, small_config
from benchmarks.study import require_counts, run_study
from benchmarks.tables import Table, TableReport
from sgloc.bench.report import Record
from sgloc.masking import mask
from sgloc.models.sketchgloc.config import Config

_LIMIT = 1e-4
# About the rounding error of float32.
_NUDGE = 1e-7
_HEADINGS = {
    "engine": ("engine", "s"),
    "ranks": ("ranks", "d"),
    "accumulation": ("accumulation", "d"),
    "difference": ("largest relative difference", ".1e"),
    "result": (f"within {_LIMIT:.0e}", "s"),
}


@dataclass(frozen=True)
class ParityOptions(RunOptions):
    """Runs to compare."""

    accumulations: tuple[int, ...] = (1, 2, 4)
    """Numbers of micro-batches per rank (gradient accumulation), comma-separated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts("accumulations", self.accumulations)


def study_parity(options: ParityOptions, config: Config) -> TableReport:
    """Train the same run with every engine, number of ranks and accumulation, and compare the losses.

    The reference for each step's loss is DistributedDataParallel on one rank. All runs are real processes. The
    reference run is repeated with its learning rate changed by no more than a rounding error, to show how far rounding
    alone moves the losses.

    Args:
        options: runs to compare, their length, and their shards.
        config: configuration of the runs.

    Raises:
        ConfigError: if there are fewer devices than ranks.
        SglocError: if the shards cannot be used, or a run fails.
    """
    engines, left_out = engines_of(options)
    num_steps = options.steps
    first = (ENGINES[0], 1, 1)
    ways = list(itertools.product(engines, options.world_sizes, options.accumulations))
    rows: list[Record] = []
    with launcher(options, config, num_steps, save_every=num_steps) as start:
        losses = start.run(*first).losses
        rate = config.optimizer.learning_rate * (1 + _NUDGE)
        nudged = start.run(*first, options=("--optimizer.learning_rate", repr(rate))).losses
        for way in ways:
            difference = relative_difference(start.run(*way).losses, losses) if way != first else 0.0
            named = dict(zip(("engine", "ranks", "accumulation"), way, strict=True))
            rows.append({**named, "difference": difference, "result": "pass" if difference <= _LIMIT else "FAIL"})
    settings = {
        "data": mask(options.data or "drawn"),
        "steps": num_steps,
        "global_batch": options.batch or config.train.global_batch,
        "precision": config.train.precision,
        "limit": _LIMIT,
    }
    report = TableReport("parity", settings, [Table("loss beside that of ddp on 1 rank in 1 part", _HEADINGS, rows)])
    passed = sum(row["result"] == "pass" for row in rows)
    report.facts.append((f"{passed} of {len(rows)} pass", {"name": "result", "passed": passed, "of": len(rows)}))
    magnified = relative_difference(nudged, losses)
    sentence = (
        f"a learning rate raised by {_NUDGE:.0e} of itself moves the losses by {magnified:.1e}: magnified rounding"
    )
    report.facts.append((sentence, {"name": "nudged", "nudge": _NUDGE, "difference": magnified}))
    if left_out:
        report.facts.append((left_out, {"name": "left out", "why": left_out}))
    return report


def main(arguments: list[str]) -> int:
    """Run the study."""
    return run_study("parity", study_parity, ParityOptions, arguments, small_config)
