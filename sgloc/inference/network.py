"""What inference asks of a network."""

from typing import Any

from torch import nn

from sgloc.nn.decoder import Decoder
from sgloc.nn.encoder import Code
from sgloc.sketch.ragged import SketchBatch


class Network(nn.Module):
    """A network that encodes sketches and draws from codes.

    Attributes:
        config: its shape; inference reads `latent_size`, the width of a code, and `max_node_points`, the most points of
            a graph node, or None where a node is a whole stroke.
        decoder: the part that draws.
    """

    config: Any
    decoder: Decoder

    def encode(self, sketches: SketchBatch) -> Code:
        """Codes of a batch (METHOD 5); their means, in evaluation mode."""
        raise NotImplementedError
