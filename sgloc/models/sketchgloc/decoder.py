"""From a sketch code to a drawing: the recurrent decoder (METHOD 6 and 9)."""

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
    """Draws sketches row by row (see `sgloc.nn.mixture`)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.keep = config.decoder.recurrent_keep
        self.cell = cell_of(config, config.decoder, ROW_SIZE + config.latent_size)
        self.initial_state = Linear(config.latent_size, sum(self.cell.state_sizes))
        self.output = Linear(config.decoder.hidden_size, NUM_PEN_STATES + 6 * config.decoder.num_mixtures)

    def first_state(self, y: Tensor) -> Tensor:
        """Flat initial state for codes y [n, Z]: [n, sum of state sizes]."""
        return torch.tanh(self.initial_state(y))

    def forward(
        self, y: Tensor, inputs: Tensor, layout: TimeMajor, random_key: Tensor, segment: int | None = None
    ) -> Tensor:
        """Teacher forcing: raw outputs for given input rows.

        Args:
            y: [B, Z], codes.
            inputs: [R, 5], the row before the one to draw, time-major.
            layout: which sketch and step each row is.
            random_key: int64 [B], for recurrent dropout in training.
            segment: see `Cell.run`.

        Returns:
            [R, 3 + 6 m], time-major, as `sgloc.nn.mixture.split_output` reads them.
        """
        mask = None
        if self.training and self.keep < 1:
            mask = recurrent_masks(self.cell, random_key[layout.sequence], Purpose.DECODER, layout.step, self.keep)
        projected = self.cell.project(inputs)
        projected += F.embedding(layout.sequence, self.cell.project(y, ROW_SIZE))
        outputs = self.cell.run(projected, layout, self.first_state(y), mask, segment)
        return self.output(outputs)  # type: ignore[no-any-return]

    def stepper(self, y: Tensor) -> "Stepper":
        """Free-running drawing from codes y [n, Z], in evaluation mode."""
        return Stepper(self, y)


class Stepper:
    """Free-running drawing of n sketches in step together, n shrinking as they end.

    Args:
        decoder: in evaluation mode.
        y: [n, Z], codes.
    """

    def __init__(self, decoder: Decoder, y: Tensor) -> None:
        self.decoder = decoder
        # Made ready once, not at every step.
        self.recurrence = decoder.cell.recurrence(decoder.cell.weights())
        self.code = decoder.cell.project(y, ROW_SIZE)
        self.state = decoder.cell.split_state(decoder.first_state(y))

    def step(self, row: Tensor) -> Tensor:
        """One step: from the previous rows [n, 5] to raw outputs [n, 3 + 6 m]."""
        projected = self.decoder.cell.project(row) + self.code
        self.state, _ = self.recurrence.step(projected, None, self.state)
        return self.decoder.output(self.state[0])  # type: ignore[no-any-return]

    def keep(self, sketches: Tensor) -> None:
        """Go on with these sketches only: bool [n]."""
        self.code = self.code[sketches]
        self.state = tuple(part[sketches] for part in self.state)
