"""What saving a run's checkpoint costs its training, and how long bringing it back takes."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable
from typing import Any

from sgloc import dist
from sgloc.bench.options import BenchOptions, describe, first_batch, preparation
from sgloc.bench.report import Report
from sgloc.bench.step import take_step
from sgloc.bench.timing import Clock, Spread
from sgloc.config import Config
from sgloc.data.manifest import SPLITS, Manifest, Moments, Split
from sgloc.models.sketchgloc.recipe import build_model
from sgloc.sketch.ragged import SketchBatch
from sgloc.train.checkpoint import Peers, checkpoint_folders, read_checkpoint
from sgloc.train.engine import Engine, open_engine
from sgloc.train.resume import resume_from
from sgloc.train.saving import Saving
from sgloc.train.schedule import learning_rate
from sgloc.train.state import TrainState

# Enough for a checkpoint to be written meanwhile.
_STEPS = 10
_EVERY = 50


def bench_checkpoint(options: BenchOptions, config: Config) -> Report:
    """Measure, in one process, the copy that a step waits for, the writing behind it, verifying, loading, and steps
    with and without a save at their start.

    Args:
        options: what to measure on; the checkpoints go to `folder`, a path or URL, else to a temporary folder.
        config: of the run whose checkpoints they are.

    Raises:
        SglocError: if the shards, the device or the folder cannot be used.
    """
    packed, scale = first_batch(options, config)
    batch = preparation(config, scale)(packed, options.device)
    num_longest = int(batch.sketch_point_offsets.diff().max())
    placement = dist.resolve_placement({})
    with contextlib.ExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory())
        train = dataclasses.replace(config.train, global_batch=len(packed), run=folder)
        config = dataclasses.replace(config, train=train)
        stack.enter_context(dist.process_group(placement, options.device))
        peers = stack.enter_context(contextlib.closing(Peers(config.train.timeout)))
        model = build_model(config, num_longest).to(options.device)
        engine = stack.enter_context(
            contextlib.closing(open_engine(model, config, options.device, placement.world_size))
        )
        saved = _Saved(engine, config, _no_shards(scale, num_longest), peers, batch)
        stack.callback(saved.saving.close)
        return _measure(saved, options, describe(packed, options))


def _no_shards(scale: float, longest_points: int) -> Manifest:
    """What a checkpoint says about its run's shards, of which there are none."""
    return Manifest(
        categories=[],
        scale=scale,
        moments=Moments(),
        longest_points=longest_points,
        longest_strokes=0,
        sketches_per_block=1,
        splits={name: Split() for name in SPLITS},
        num_read=0,
        skipped={},
        rejected={},
        sources=[],
        licence="",
    )


class _Saved:
    """A run that takes the same step again and again, and is saved."""

    def __init__(self, engine: Engine, config: Config, data: Manifest, peers: Peers, batch: SketchBatch) -> None:
        self.engine, self.config, self.data, self.peers, self.batch = engine, config, data, peers, batch
        self.rate = learning_rate(config.optimizer, 0)
        self.state = TrainState()
        self.saving = Saving(config, data, engine, peers, None, say=print)

    def save(self) -> None:
        """Begin to save the next step."""
        self.state.step += 1
        self.saving.save(self.engine, self.state)

    def take_steps(self) -> None:
        """Some steps."""
        for _ in range(_STEPS):
            take_step(self.engine, self.batch, self.rate)

    def load(self) -> None:
        """Bring it back."""
        folders = checkpoint_folders(self.config.train.run)
        resume_from(folders, self.engine, self.config, self.data, self.peers, print)


def _measure(saved: _Saved, options: BenchOptions, settings: dict[str, Any]) -> Report:
    clock = Clock(options.device)

    def time(action: Callable[[], object]) -> float:
        start = clock.mark()
        action()
        return clock.seconds(start, clock.mark())

    def with_save() -> None:
        saved.save()
        saved.take_steps()

    seconds: dict[str, list[float]] = {name: [] for name in ("copy", "write", "verify", "load", "steps", "with a save")}
    saved.take_steps()
    saved.save()
    for _ in range(options.num_repeats):
        saved.saving.wait()
        seconds["copy"].append(time(saved.save))
        seconds["write"].append(time(saved.saving.wait))
        newest = checkpoint_folders(saved.config.train.run)[0]
        seconds["verify"].append(time(lambda newest=newest: read_checkpoint(newest)))  # type: ignore[misc]
        seconds["load"].append(time(saved.load))
        seconds["steps"].append(time(saved.take_steps))
        seconds["with a save"].append(time(with_save))
    manifest = read_checkpoint(newest)
    report = Report(
        "checkpoint",
        {**settings, "mebibytes": manifest.num_bytes / 2**20, "tensors": len(manifest.tensors)},
        options.device,
    )
    for name, times in seconds.items():
        num_steps = _STEPS if name in ("steps", "with a save") else 1
        report.add(
            name, times, num_steps * len(saved.batch.sketch_point_offsets[1:]), num_steps * len(saved.batch.points)
        )
    pairs = zip(seconds["steps"], seconds["with a save"], strict=True)
    shares = [(saving - plain) / (plain / _STEPS * _EVERY) for plain, saving in pairs]
    # Steps scatter more than a save costs: what it would cost if nothing went on meanwhile.
    rows = zip(seconds["copy"], seconds["write"], seconds["steps"], strict=True)
    bounds = [(copy + write) / (plain / _STEPS * _EVERY) for copy, write, plain in rows]
    for name, values in (("", shares), (", if steps waited for it all", bounds)):
        fact = {"name": f"a save's share of {_EVERY} steps{name}", **dataclasses.asdict(Spread.of(values))}
        report.facts.append(fact)
    return report
