"""The interface that inference requires of a network."""

from typing import Any, Protocol

from torch import Tensor, nn

from sgloc.sketch.ragged import SketchBatch, smallest_batch


class Stepper(Protocol):
    """Free-running decoding of n sketches in lockstep; n shrinks as sketches end."""

    def step(self, row: Tensor, /) -> Tensor:
        """Advance one step: from the previous rows [n, 5] to raw outputs for `sgloc.nn.mixture.split_output`.

        Returns:
            [n, 3 + 6 m].
        """
        ...

    def keep(self, sketches: Tensor, /) -> None:
        """Keep only the sketches selected by a bool mask [n]."""
        ...


class Decoder(Protocol):
    """A network, or a part of one, that draws from codes."""

    def stepper(self, y: Tensor, /) -> Stepper:
        """Start drawing from codes y [n, Z]."""
        ...


class Code(Protocol):
    """The encoding of a batch."""

    @property
    def y(self) -> Tensor:
        """Codes to decode, [B, Z]."""
        ...


class Network(nn.Module):
    """A network that encodes sketches and draws from codes.

    Inheriting is not required: inference accepts any module with these methods.

    Attributes:
        config: the network's options. `max_node_points` limits the points of a graph node; without that option a node
            is a whole stroke.
    """

    config: Any

    def toy_batch(self) -> SketchBatch:
        """Return a minimal batch, on the host."""
        return smallest_batch()

    def encode(self, sketches: SketchBatch) -> Code:
        """Compute the codes of a batch (METHOD 5); in evaluation mode, their means."""
        raise NotImplementedError

    def stepper(self, y: Tensor) -> Stepper:
        """Start drawing from codes y [n, Z]."""
        raise NotImplementedError
