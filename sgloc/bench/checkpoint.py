"""Benchmark of checkpoints: the cost of a save to training, and the time of a load."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable

import numpy as np

from sgloc.bench.batches import describe, first_batch, opened_engine, preparation
from sgloc.bench.options import CheckpointOptions
from sgloc.bench.report import Record, Report
from sgloc.bench.step import take_step
from sgloc.bench.timing import Clock, spread
from sgloc.dist import Group
from sgloc.models.sketchgloc.config import Config
from sgloc.train.checkpoint.load import checkpoint_folders, read_checkpoint
from sgloc.train.checkpoint.manager import CheckpointManager
from sgloc.train.schedule import learning_rate
from sgloc.train.start import resume_from
from sgloc.train.state import TrainState

# Enough steps for the background writer to finish a checkpoint meanwhile.
_STEPS = 10
_EVERY = 50


def measure(options: CheckpointOptions, config: Config, report: Report) -> None:
    """Measure checkpointing in one process.

    The measurements are the copy that a step waits for, the background write, verification, loading, and a series of
    steps with and without a save at its start.
    """
    device = report.device
    packed, manifest = first_batch(options, config)
    batch = preparation(config, manifest)(packed, device)
    with contextlib.ExitStack() as stack:
        folder = options.out or stack.enter_context(tempfile.TemporaryDirectory())
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, run=folder))
        engine = stack.enter_context(opened_engine(config, manifest, device))
        group = Group(device, config.train.timeout)
        writers = stack.enter_context(contextlib.closing(group.separate()))
        state, rate, clock = TrainState(), learning_rate(config.optimizer, 0), Clock(device)
        manager = CheckpointManager(config, manifest, engine, state, group, writers, None)
        stack.callback(manager.close)

        def save() -> None:
            state.step += 1
            manager.save()

        def take_steps() -> None:
            for _ in range(_STEPS):
                take_step(engine, batch, rate)

        def save_and_take_steps() -> None:
            save()
            take_steps()

        parts: dict[str, Callable[[], object]] = {
            "copy": save,
            "write": manager.wait,
            "verify": lambda: read_checkpoint(checkpoint_folders(folder)[0]),
            "load": lambda: resume_from(checkpoint_folders(folder), engine, config, manifest, writers),
            "steps": take_steps,
            "with a save": save_and_take_steps,
        }
        seconds: dict[str, list[float]] = {name: [] for name in parts}
        take_steps()
        save()
        for _ in range(options.repeats):
            manager.wait()
            for name, part in parts.items():
                seconds[name].append(clock.time(part))
        newest = read_checkpoint(checkpoint_folders(folder)[0])
    sizes = {"mebibytes": newest.num_bytes / 2**20, "tensors": len(newest.tensors)}
    report.settings = {**describe(packed, options), **sizes}
    for name, times in seconds.items():
        num_steps = _STEPS if name in ("steps", "with a save") else 1
        report.add(name, times, num_steps * len(batch), num_steps * len(batch.points))
    report.facts += _shares(seconds)


def _shares(seconds: dict[str, list[float]]) -> list[Record]:
    """Return the cost of a save as a share of the time of the steps between two saves."""
    times = {name: np.array(values) for name, values in seconds.items()}
    between = times["steps"] / _STEPS * _EVERY
    shares = {
        "": (times["with a save"] - times["steps"]) / between,
        # Step times vary by more than a save costs, so this also reports the upper bound: no overlap at all.
        ", if steps waited for it all": (times["copy"] + times["write"]) / between,
    }
    return [{"name": f"a save's share of {_EVERY} steps{name}", **spread(share)} for name, share in shares.items()]
