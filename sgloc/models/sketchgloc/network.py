"""SketchGloc's network: encoder, decoder and loss in one module (METHOD 5 to 7)."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sgloc.inference.network import Network, Stepper
from sgloc.models.sketchgloc.config import LossConfig, ModelConfig
from sgloc.models.sketchgloc.decoder import Decoder
from sgloc.models.sketchgloc.encoder import Code, Encoder, LayoutEncoder, SequenceEncoder
from sgloc.nn.mixture import split_output
from sgloc.nn.recomputed import of_each_part, parts_of
from sgloc.nn.recurrent.cells import Cell
from sgloc.nn.recurrent.compiled import CompiledSteps
from sgloc.nn.recurrent.sequence import TimeMajor
from sgloc.nn.rows import decoder_rows
from sgloc.sketch.ragged import SketchBatch
from sgloc.train.recipe import Trainable

_CHECKPOINT_STEPS = 32


class LossSums(NamedTuple):
    """Loss terms summed over the steps and the sketches of a batch; 0-dimensional, in nats.

    Attributes:
        mixture: negative log density of the points.
        pen: cross entropy of the pen states.
        divergence: Kullback-Leibler divergence of the codes from a standard normal.
        total: the loss to minimise, mixture + pen + kl_weight * divergence; in training with the current step's weight.
    """

    mixture: Tensor
    pen: Tensor
    divergence: Tensor
    total: Tensor


class SketchGloc(Network, Trainable):
    """SketchGloc, or a baseline that differs in its encoder.

    Args:
        config: the architecture.
        loss: the loss options; None uses the defaults.
        longest: number of points of the data set's longest drawing; used only with `loss.pen_loss_on_padding`.
        checkpoint_decoder: in training, store the decoder's state only every 32 steps and recompute the others in the
            backward pass.
    """

    loss_names: ClassVar[tuple[str, ...]] = LossSums._fields
    config: ModelConfig

    def __init__(
        self,
        config: ModelConfig,
        loss: LossConfig | None = None,
        longest: int = 0,
        checkpoint_decoder: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.loss = loss or LossConfig()
        self.longest = longest
        self.checkpoint_decoder = checkpoint_decoder
        self.kl_share = 1.0
        self.encoder: Encoder = LayoutEncoder(config) if config.kind == "sketchgloc" else SequenceEncoder(config)
        self.decoder = Decoder(config)

    def begin_step(self, step: int) -> None:
        """Set the divergence's weight for a training step (counted from 0); it grows with the steps."""
        self.kl_share = 1 - (1 - self.loss.kl_start) * self.loss.kl_decay**step

    def compile_steps(self, backend: str | Callable[..., object] = "inductor") -> None:
        """Switch the recurrent cells to steps compiled by torch.compile; weights and results do not change.

        Args:
            backend: the backend of torch.compile.
        """
        steps = CompiledSteps(backend)
        for module in self.modules():
            if isinstance(module, Cell):
                module.compiled_steps = steps

    def encode(self, sketches: SketchBatch) -> Code:
        """Compute the codes of a batch (METHOD 5): sampled in training mode, the means otherwise."""
        return self.encoder.code(self.encoder.gather(sketches), sketches.random_key)

    def stepper(self, y: Tensor) -> Stepper:
        """Start drawing from codes y [n, Z] (METHOD 9)."""
        return self.decoder.stepper(y)

    def forward(self, sketches: SketchBatch, num_parts: int = 1) -> LossSums:
        """Compute the loss of a batch.

        Args:
            sketches: the batch.
            num_parts: number of micro-batches. With more than one, each micro-batch's activations are freed and
                recomputed in the backward pass. Batch norm alone sees all sketches at once, since it needs the global
                batch; hence the result does not depend on num_parts.

        Returns:
            The loss terms.
        """
        parts = parts_of(sketches, num_parts)
        gathered = torch.cat(of_each_part(self.encoder.gather, parts))
        code = self.encoder.code(gathered, sketches.random_key)
        terms = of_each_part(self.reconstruction, parts, code.y.split(list(map(len, parts))))
        mixture, pen = (torch.stack(term).sum() for term in zip(*terms, strict=True))
        divergence = -0.5 * (1 + code.log_variance - code.mean.square() - code.log_variance.exp()).sum()
        total = mixture + pen
        if self.loss.kl_weight > 0:
            share = self.kl_share if self.training else 1.0
            total = total + self.loss.kl_weight * share * divergence
        return LossSums(mixture, pen, divergence, total)

    def reconstruction(self, sketches: SketchBatch, y: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of redrawing the sketches from codes y [B, Z] (METHOD 7).

        Returns:
            Negative log density of the points and cross entropy of the pen, each summed over the batch.
        """
        num_rows = sketches.sketch_point_offsets.diff() + 1
        if self.training and self.loss.pen_loss_on_padding:
            num_rows = num_rows.clamp(min=self.longest + 1)
        inputs, pen, point = decoder_rows(sketches, num_rows)
        layout = TimeMajor.from_lengths(num_rows)
        row = (torch.cumsum(num_rows, 0) - num_rows)[layout.sequence] + layout.step
        segment = _CHECKPOINT_STEPS if self.checkpoint_decoder and self.training else None
        pen_logits, mixture = split_output(self.decoder(y, inputs[row], layout, sketches.random_key, segment))
        pen_loss = F.cross_entropy(pen_logits, pen[row], reduction="sum")
        # End rows have no point; evaluate their density at the origin, then exclude it from the sum.
        real = point[row] >= 0
        places = torch.where(real[:, None], sketches.targets[point[row]], 0)
        log_density = mixture.log_density(places, self.loss.density_floor)
        return -torch.where(real, log_density, 0).sum(), pen_loss
