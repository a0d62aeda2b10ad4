"""Whether a run that is resumed, on as many ranks or others, by its engine or another, goes on as if it had not been
stopped (DESIGN contract 3)."""

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
    """What changes where a run stops."""

    engine: str
    ranks: int
    next_engine: str
    next_ranks: int

    @property
    def is_none(self) -> bool:
        """Whether nothing changes."""
        return (self.engine, self.ranks) == (self.next_engine, self.next_ranks)


@dataclass(frozen=True)
class ResumeOptions(RunOptions):
    """Which runs are resumed."""

    steps: int = option(20, at_least=1)
    """Steps before the checkpoint, and as many after it."""


def study_resume(options: ResumeOptions, config: Config) -> TableReport:
    """Train runs to their end, resume their checkpoints of halfway in other runs, and compare the losses that follow
    with those of the run that went on. All are real processes.

    Args:
        options: which engines, on how many ranks, how many steps before and after, on which shards.
        config: of the run.

    Raises:
        ConfigError: if there are not as many devices.
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
    """Each engine on the same and on other numbers of ranks; then DistributedDataParallel and each other engine in
    exchange, on two ranks or, without those, on the first number of ranks."""
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
    """Resume a run's checkpoint of halfway; the row of the table."""
    resumed = start.run(change.next_engine, change.next_ranks, resume=source.checkpoint(num_steps))
    difference = relative_difference(resumed.losses, source.losses[num_steps:])
    if change.is_none:
        # Weights and the optimizer's moments as well.
        passed = difference == 0 and resumed.digests(2 * num_steps) == source.digests(2 * num_steps)
    else:
        passed = difference <= _LIMIT
    limit = "to the bit" if change.is_none else f"{_LIMIT:.0e}"
    result = "pass" if passed else "FAIL"
    return {**change._asdict(), "difference": difference, "limit": limit, "result": result}


def main(arguments: list[str]) -> int:
    """Run the study."""
    return run_study("resume", study_resume, ResumeOptions, arguments, small_config)
