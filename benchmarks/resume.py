"""Losses of resumed runs against uninterrupted ones, across engines and numbers of ranks (DESIGN contract 3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.launched import (
    ENGINES,
    Launcher,
    Run,
    RunOptions,
    engines_of,
    launcher,
    relative_difference,
    small_config,
)
from benchmarks.study import run_study
from benchmarks.tables import Table, TableReport
from sgloc.bench.report import Record
from sgloc.config import option
from sgloc.masking import mask
from sgloc.models.sketchgloc.config import Config

_LIMIT = 1e-6
_CHANGES = ((2, 2), (2, 1), (1, 2), (2, 4), (4, 2))
_EXCHANGED_ON = 2
_HEADINGS = {
    "engine": ("engine", "s"),
    "ranks": ("ranks", "d"),
    "next_engine": ("then engine", "s"),
    "next_ranks": ("then ranks", "d"),
    "difference": ("largest relative difference", ".1e"),
    "limit": ("limit", "s"),
    "result": ("result", "s"),
}


class Change(NamedTuple):
    """Engine and number of ranks before and after a resume."""

    engine: str
    ranks: int
    next_engine: str
    next_ranks: int

    @property
    def is_none(self) -> bool:
        """Whether the resume changes neither engine nor number of ranks."""
        return (self.engine, self.ranks) == (self.next_engine, self.next_ranks)


@dataclass(frozen=True)
class ResumeOptions(RunOptions):
    """Runs to resume."""

    steps: int = option(20, at_least=1)
    """Steps before the checkpoint; the same number follows it."""


def study_resume(options: ResumeOptions, config: Config) -> TableReport:
    """Compare the losses after a resume with those of the uninterrupted run.

    Runs are trained to the end, and other runs resume from their halfway checkpoints. All runs are real processes.

    Args:
        options: engines, numbers of ranks, steps, and shards.
        config: configuration of the runs.

    Raises:
        ConfigError: if there are fewer devices than ranks.
        SglocError: if the shards cannot be used, or a run fails.
    """
    engines, left_out = engines_of(options)
    num_steps = options.steps
    changes = list(_changes(engines, options.world_sizes))
    whole: dict[tuple[str, int], Run] = {}
    rows = []
    with launcher(options, config, 2 * num_steps, save_every=num_steps) as start:
        for change in changes:
            source = (change.engine, change.ranks)
            if source not in whole:
                whole[source] = start.run(*source)
            rows.append(_resume(start, whole[source], change, num_steps))
    settings = {
        "data": mask(options.data or "drawn"),
        "steps_before": num_steps,
        "steps_after": num_steps,
        "global_batch": options.batch or config.train.global_batch,
        "precision": config.train.precision,
    }
    report = TableReport("resume", settings, [Table("losses after a resume beside those without", _HEADINGS, rows)])
    passed = sum(row["result"] == "pass" for row in rows)
    report.facts.append((f"{passed} of {len(rows)} pass", {"name": "result", "passed": passed, "of": len(rows)}))
    if left_out:
        report.facts.append((left_out, {"name": "left out", "why": left_out}))
    return report


def _changes(engines: tuple[str, ...], ranks: tuple[int, ...]) -> Iterator[Change]:
    """Yield the changes to test.

    First each engine keeps or changes its number of ranks. Then DistributedDataParallel and each other engine resume
    each other's runs, on two ranks or, if two is not among the numbers of ranks, on the first of them.
    """
    pairs = [pair for pair in _CHANGES if set(pair) <= set(ranks)] or [(ranks[0], ranks[0])]
    for engine in engines:
        for before, after in pairs:
            yield Change(engine, before, engine, after)
    common = _EXCHANGED_ON if _EXCHANGED_ON in ranks else ranks[0]
    ddp, *_ = ENGINES
    for engine in engines:
        if ddp in engines and engine != ddp:
            yield Change(ddp, common, engine, common)
            yield Change(engine, common, ddp, common)


def _resume(start: Launcher, source: Run, change: Change, num_steps: int) -> Record:
    """Resume from a run's halfway checkpoint, and return the row of the table."""
    resumed = start.run(change.next_engine, change.next_ranks, resume=source.checkpoint(num_steps))
    difference = relative_difference(resumed.losses, source.losses[num_steps:])
    if change.is_none:
        # The digests cover the weights and the optimizer state too.
        passed = difference == 0 and resumed.digests(2 * num_steps) == source.digests(2 * num_steps)
    else:
        passed = difference <= _LIMIT
    limit = "to the bit" if change.is_none else f"{_LIMIT:.0e}"
    result = "pass" if passed else "FAIL"
    return {**change._asdict(), "difference": difference, "limit": limit, "result": result}


def main(arguments: list[str]) -> int:
    """Run the study."""
    return run_study("resume", study_resume, ResumeOptions, arguments, small_config)
