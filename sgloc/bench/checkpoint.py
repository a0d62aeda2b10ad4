"""What saving a run's checkpoint costs its training, and how long bringing it back takes."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable

import torch

from sgloc.bench.batches import describe, first_batch, opened_engine, preparation
from sgloc.bench.options import CheckpointOptions
from sgloc.bench.report import Report
from sgloc.bench.step import take_step
from sgloc.bench.timing import Clock, spread
from sgloc.data.manifest import Manifest
from sgloc.dist import Group
from sgloc.models.sketchgloc.config import Config
from sgloc.sketch.ragged import SketchBatch
from sgloc.train.checkpoint import checkpoint_folders, read_checkpoint
from sgloc.train.checkpoint.manager import CheckpointManager
from sgloc.train.engine import Engine
from sgloc.train.schedule import learning_rate
from sgloc.train.start import resume_from
from sgloc.train.state import TrainState

# Enough for a checkpoint to be written meanwhile.
_STEPS = 10
_EVERY = 50


def measure(options: CheckpointOptions, config: Config, device: torch.device) -> Report:
    """Measure, in one process, the copy that a step waits for, the writing behind it, verifying, loading, and steps
    with and without a save at their start."""
    packed, manifest = first_batch(options, config)
    batch = preparation(config, manifest)(packed, device)
    with contextlib.ExitStack() as stack:
        folder = options.out or stack.enter_context(tempfile.TemporaryDirectory())
        train = dataclasses.replace(config.train, global_batch=len(packed), run=folder)
        config = dataclasses.replace(config, train=train)
        engine = stack.enter_context(opened_engine(config, manifest, device))
        group = Group(device, config.train.timeout)
        writers = stack.enter_context(contextlib.closing(group.separate()))
        saved = _Saved(engine, config, manifest, group, writers, batch)
        stack.callback(saved.saving.close)
        seconds = _time(saved, Clock(device), options.repeats)
        newest = read_checkpoint(saved.newest)
    sizes = {"mebibytes": newest.num_bytes / 2**20, "tensors": len(newest.tensors)}
    report = Report("checkpoint", {**describe(packed, options), **sizes}, device)
    for name, times in seconds.items():
        num_steps = _STEPS if name in ("steps", "with a save") else 1
        report.add(name, times, num_steps * len(batch), num_steps * len(batch.points))
    pairs = zip(seconds["steps"], seconds["with a save"], strict=True)
    shares = [(saving - plain) / (plain / _STEPS * _EVERY) for plain, saving in pairs]
    # Steps scatter more than a save costs: what it would cost if nothing went on meanwhile.
    rows = zip(seconds["copy"], seconds["write"], seconds["steps"], strict=True)
    bounds = [(copy + write) / (plain / _STEPS * _EVERY) for copy, write, plain in rows]
    for name, values in (("", shares), (", if steps waited for it all", bounds)):
        report.facts.append({"name": f"a save's share of {_EVERY} steps{name}", **spread(values)})
    return report


class _Saved:
    """A run that takes the same step again and again, and is saved."""

    def __init__(
        self, engine: Engine, config: Config, data: Manifest, group: Group, writers: Group, batch: SketchBatch
    ) -> None:
        self.engine, self.config, self.data, self.writers, self.batch = engine, config, data, writers, batch
        self.rate, self.state = learning_rate(config.optimizer, 0), TrainState()
        self.saving = CheckpointManager(config, data, engine, self.state, group, writers, None)

    @property
    def newest(self) -> str:
        """The folder of the newest checkpoint."""
        return checkpoint_folders(self.config.train.run)[0]

    def save(self) -> None:
        """Begin to save the next step."""
        self.state.step += 1
        self.saving.save()

    def take_steps(self) -> None:
        """Some steps."""
        for _ in range(_STEPS):
            take_step(self.engine, self.batch, self.rate)

    def save_and_take_steps(self) -> None:
        """A save, and steps while it is written."""
        self.save()
        self.take_steps()

    def load(self) -> None:
        """Bring it back."""
        folders = checkpoint_folders(self.config.train.run)
        resume_from(folders, self.engine, self.config, self.data, self.writers)


def _time(saved: _Saved, clock: Clock, num_repeats: int) -> dict[str, list[float]]:
    """Seconds of each part of saving and loading, in turn."""
    parts: dict[str, Callable[[], object]] = {
        "copy": saved.save,
        "write": saved.saving.wait,
        "verify": lambda: read_checkpoint(saved.newest),
        "load": saved.load,
        "steps": saved.take_steps,
        "with a save": saved.save_and_take_steps,
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    saved.take_steps()
    saved.save()
    for _ in range(num_repeats):
        saved.saving.wait()
        for name, part in parts.items():
            seconds[name].append(clock.time(part))
    return seconds
