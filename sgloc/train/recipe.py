"""What the trainer asks of a model: a recipe, and the network that it builds."""

from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from sgloc.config import RunConfig
from sgloc.data.batch import PackedBatch
from sgloc.data.manifest import Manifest
from sgloc.data.reader import ShardReader


class Trainable(nn.Module):
    """A model that the training loop, its engines and its checkpoints work with.

    Attributes:
        loss_names: of the terms that `forward` gives; the last, `total`, is what is minimised.
    """

    loss_names: ClassVar[tuple[str, ...]]

    def forward(self, batch: Any, num_parts: int = 1) -> Any:
        """Loss terms of a batch.

        Args:
            batch: as the model's preparation makes it, on the device.
            num_parts: in how many parts to compute it; the result does not depend on it.

        Returns:
            A named tuple of 0-dimensional tensors, each a sum over the batch's sketches.
        """
        raise NotImplementedError

    def toy_batch(self) -> Any:
        """The smallest batch there is, on the host."""
        raise NotImplementedError

    def begin_step(self, step: int) -> None:
        """Told before each training step, counted from 0; most losses are the same at every step."""


class Prepare(Protocol):
    """How packed sketches become a model's batch, in two parts."""

    def load(self, packed: PackedBatch) -> Any:
        """The part on the host, which may be done ahead of the training step by a thread."""

    def __call__(self, loaded: Any, device: torch.device, /) -> Any:
        """The part on the device."""


class Gallery(Protocol):
    """Pictures that a model makes while it trains."""

    def draw(self, model: Any, device: torch.device) -> dict[str, bytes]:
        """PNG files by name; what cannot be drawn is left out, and the reason is given once.

        Args:
            model: the network, with whole weights, on the device.
            device: to compute on.
        """


class DataFacts(Protocol):
    """What a network may depend on of the data that it is trained on; `Manifest` and `CheckpointManifest` have it."""

    @property
    def longest_points(self) -> int:
        """Points of the longest drawing."""

    @property
    def num_categories(self) -> int:
        """Categories of drawings."""


class Recipe(Protocol):
    """What a run trains."""

    @property
    def config_type(self) -> type[RunConfig]:
        """Of its configuration, whose section `model` has the option `kind`."""

    def build_model(self, config: Any, data: DataFacts) -> Trainable:
        """A model with the initial weights of the configured seed; the same on every rank and every start."""

    def preparations(self, config: Any, manifest: Manifest) -> tuple[Prepare, Prepare]:
        """That of drawings to train on, and that of drawings to measure by, which are not augmented."""

    def gallery(self, config: Any, reader: ShardReader, manifest: Manifest) -> Gallery | None:
        """What shows log.gallery sketches, at least one, at each validation; None if the model shows nothing."""
