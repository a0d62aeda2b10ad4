"""What a run trains: SketchGloc, or another model that the same loop, engines and checkpoints serve."""

import dataclasses
from typing import Any, Protocol

import torch

from sgloc.config import Config
from sgloc.data.batch import PackedBatch, Preparation
from sgloc.data.manifest import Manifest
from sgloc.data.origin import starts_at_first_point
from sgloc.data.reader import ShardReader
from sgloc.nn.sketchgloc import SketchGloc
from sgloc.nn.trainable import Trainable
from sgloc.train.gallery import Gallery
from sgloc.train.loggers.open import shows_galleries


class Prepare(Protocol):
    """How packed sketches become a model's batch, in two parts."""

    def load(self, packed: PackedBatch) -> Any:
        """The part on the host, which may be done ahead of the training step by a thread."""
        ...

    def __call__(self, loaded: Any, device: torch.device, /) -> Any:
        """The part on the device."""
        ...


class Task(Protocol):
    """What a run trains, for a type of configuration.

    Attributes:
        loads_ahead: whether loading is work, for a thread of its own.
    """

    loads_ahead: bool

    def build_model(self, config: Any, manifest: Manifest) -> Trainable:
        """A model with the initial weights of the configured seed; the same on every rank and every start."""
        ...

    def preparations(self, config: Any, manifest: Manifest) -> tuple[Prepare, Prepare]:
        """That of drawings to train on, and that of drawings to measure by, which are not augmented."""
        ...

    def gallery(self, config: Any, reader: ShardReader, manifest: Manifest) -> Gallery | None:
        """What draws validation sketches from time to time; None when nobody wants them."""
        ...


def build_model(config: Config, longest_points: int) -> SketchGloc:
    """A model with the initial weights of the configured seed; the same on every rank and every start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return SketchGloc(config.model, config.loss, longest_points)


class SketchTask:
    """SketchGloc, and what it is compared with."""

    loads_ahead = False

    def build_model(self, config: Config, manifest: Manifest) -> SketchGloc:
        """See `Task.build_model`."""
        return build_model(config, manifest.longest_points)

    def preparations(self, config: Config, manifest: Manifest) -> tuple[Preparation, Preparation]:
        """See `Task.preparations`."""
        data = config.data
        fixed = Preparation(
            scale=manifest.scale,
            seed=config.train.seed,
            disturb_scale=data.disturb_scale if data.validation_disturb is None else data.validation_disturb,
            max_node_points=config.model.max_node_points,
            from_first_point=starts_at_first_point(manifest, data.origin, data.path),
        )
        training = dataclasses.replace(
            fixed,
            disturb_scale=data.disturb_scale,
            augment_scale=data.augment_scale,
            drop_probability=data.drop_probability,
            translate=data.translate,
        )
        return training, fixed

    def gallery(self, config: Config, reader: ShardReader, manifest: Manifest) -> Gallery | None:
        """See `Task.gallery`."""
        _, fixed = self.preparations(config, manifest)
        shown = dataclasses.replace(fixed, disturb_scale=config.data.disturb_scale)
        return Gallery(reader, shown, config.log.gallery) if shows_galleries(config) else None


SKETCHES = SketchTask()
