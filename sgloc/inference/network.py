"""What inference asks of a network."""

from typing import Any, Protocol

from torch import Tensor, nn

from sgloc.sketch.ragged import SketchBatch, smallest_batch


class Stepper(Protocol):
    """Free-running drawing of n sketches in step together, n shrinking as they end."""

    def step(self, row: Tensor, /) -> Tensor:
        """One step: from the previous rows [n, 5] to raw outputs [n, 3 + 6 m], as `sgloc.nn.mixture.split_output` reads
        them."""
        ...

    def keep(self, sketches: Tensor, /) -> None:
        """Go on with these sketches only: bool [n]."""
        ...


class Decoder(Protocol):
    """What draws from codes: a network, or a part of it."""

    def stepper(self, y: Tensor, /) -> Stepper:
        """Begin to draw from codes y [n, Z]."""
        ...


class Code(Protocol):
    """What a network makes of a batch."""

    @property
    def y(self) -> Tensor:
        """The codes, [B, Z]."""
        ...


class Network(nn.Module):
    """A network that encodes sketches and draws from codes; any other module with its methods will do.

    Attributes:
        config: its options. One that has no `max_node_points`, the most points of a graph node, takes whole strokes.
    """

    config: Any

    def toy_batch(self) -> SketchBatch:
        """The smallest batch there is, on the host."""
        return smallest_batch()

    def encode(self, sketches: SketchBatch) -> Code:
        """Codes of a batch (METHOD 5); their means, in evaluation mode."""
        raise NotImplementedError

    def stepper(self, y: Tensor) -> Stepper:
        """Begin to draw from codes y [n, Z]."""
        raise NotImplementedError
