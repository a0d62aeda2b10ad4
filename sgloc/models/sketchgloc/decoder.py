"""The recurrent decoder, which turns a sketch code into a drawing (METHOD 6 and 9)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgloc.models.sketchgloc.config import ModelConfig
from sgloc.models.sketchgloc.encoder import cell_of
from sgloc.nn.product import Linear
from sgloc.nn.recurrent.bidirectional import recurrent_masks
from sgloc.nn.recurrent.sequence import TimeMajor
from sgloc.nn.rows import NUM_PEN_STATES, ROW_SIZE
from sgloc.random import Purpose


class Decoder(nn.Module):
    """Recurrent decoder that predicts a sketch row by row (see `sgloc.nn.mixture`)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.keep = config.decoder.recurrent_keep
        self.cell = cell_of(config, config.decoder, ROW_SIZE + config.latent_size)
        self.initial_state = Linear(config.latent_size, sum(self.cell.state_sizes))
        self.output = Linear(config.decoder.hidden_size, NUM_PEN_STATES + 6 * config.decoder.num_mixtures)

    def first_state(self, y: Tensor) -> Tensor:
        """Return the flat initial state, [n, sum of state sizes], for codes y [n, Z]."""
        return torch.tanh(self.initial_state(y))

    def forward(
        self, y: Tensor, inputs: Tensor, layout: TimeMajor, random_key: Tensor, segment: int | None = None
    ) -> Tensor:
        """Compute raw outputs with teacher forcing.

        Args:
            y: [B, Z], codes.
            inputs: [R, 5], time-major; for each row to predict, the row before it.
            layout: the sketch and the step of each row.
            random_key: int64 [B], for recurrent dropout in training.
            segment: see `Cell.run`.

        Returns:
            [R, 3 + 6 m], time-major, in the layout that `sgloc.nn.mixture.split_output` expects.
        """
        mask = None
        if self.training and self.keep < 1:
            mask = recurrent_masks(self.cell, random_key[layout.sequence], Purpose.DECODER, layout.step, self.keep)
        projected = self.cell.project(inputs)
        projected += F.embedding(layout.sequence, self.cell.project(y, ROW_SIZE))
        outputs = self.cell.run(projected, layout, self.first_state(y), mask, segment)
        return self.output(outputs)  # type: ignore[no-any-return]

    def stepper(self, y: Tensor) -> "Stepper":
        """Start free-running decoding from codes y [n, Z]; the decoder must be in evaluation mode."""
        return Stepper(self, y)


class Stepper:
    """Free-running decoding of n sketches in lockstep; n shrinks as sketches end.

    Args:
        decoder: the decoder, in evaluation mode.
        y: [n, Z], codes.
    """

    def __init__(self, decoder: Decoder, y: Tensor) -> None:
        self.decoder = decoder
        # Prepared once here rather than at every step.
        self.recurrence = decoder.cell.recurrence(decoder.cell.weights())
        self.code = decoder.cell.project(y, ROW_SIZE)
        self.state = decoder.cell.split_state(decoder.first_state(y))

    def step(self, row: Tensor) -> Tensor:
        """Advance one step: from the previous rows [n, 5] to raw outputs [n, 3 + 6 m]."""
        projected = self.decoder.cell.project(row) + self.code
        self.state, _ = self.recurrence.step(projected, None, self.state)
        return self.decoder.output(self.state[0])  # type: ignore[no-any-return]

    def keep(self, sketches: Tensor) -> None:
        """Keep only the sketches selected by a bool mask [n]."""
        self.code = self.code[sketches]
        self.state = tuple(part[sketches] for part in self.state)
