"""The interface between trainer and model: the recipe protocol and the network that a recipe builds."""

from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from sgloc.config import RunConfig
from sgloc.data.batch import PackedBatch
from sgloc.data.manifest import Manifest
from sgloc.data.reader import ShardReader


class Trainable(nn.Module):
    """Base class of a model that the trainer, the engines and the checkpoints can handle.

    Attributes:
        loss_names: names of the loss terms that `forward` returns; the last one, `total`, is minimised.
    """

    loss_names: ClassVar[tuple[str, ...]]

    def forward(self, batch: Any, num_parts: int = 1) -> Any:
        """Compute the loss terms of a batch.

        Args:
            batch: the output of the model's `Prepare`, on the device.
            num_parts: number of micro-batches to compute it in; does not affect the result.

        Returns:
            A named tuple of 0-dimensional tensors, each a sum over the batch's sketches.
        """
        raise NotImplementedError

    def toy_batch(self) -> Any:
        """Return the smallest possible batch, on the host."""
        raise NotImplementedError

    def begin_step(self, step: int) -> None:
        """Hook before each training step (counted from 0), for a loss that depends on the step; does nothing here."""


class Prepare(Protocol):
    """Turns packed sketches into a model's batch, in two stages."""

    def load(self, packed: PackedBatch) -> Any:
        """Run the host stage; a loader thread may call it ahead of the training step."""

    def __call__(self, loaded: Any, device: torch.device, /) -> Any:
        """Run the device stage."""


class Gallery(Protocol):
    """Pictures that show what a model produces during training."""

    def draw(self, model: Any, device: torch.device) -> dict[str, bytes]:
        """Return PNG files by name; a picture that cannot be drawn is omitted, and the reason logged once.

        Args:
            model: the network, with unsharded weights, on the device.
            device: the device to compute on.
        """


class DataFacts(Protocol):
    """The properties of a data set that a network may depend on; `Manifest` and `CheckpointManifest` provide them."""

    @property
    def longest_points(self) -> int:
        """Number of points in the longest drawing."""

    @property
    def num_categories(self) -> int:
        """Number of drawing categories."""


class Recipe(Protocol):
    """Everything specific to one kind of model that the trainer needs."""

    @property
    def config_type(self) -> type[RunConfig]:
        """The type of the run's configuration; its `model` section has an option `kind`."""

    def build_model(self, config: Any, data: DataFacts) -> Trainable:
        """Build a model whose initial weights follow from the configured seed: the same on every rank and start."""

    def preparations(self, config: Any, manifest: Manifest) -> tuple[Prepare, Prepare]:
        """Return the preparation for training and the one for validation, which does not augment."""

    def gallery(self, config: Any, reader: ShardReader, manifest: Manifest) -> Gallery | None:
        """Return the gallery of log.gallery sketches (at least one) to draw at each validation; None without one."""
