"""From a sketch code to a drawing: the recurrent decoder (METHOD 6 and 9)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgloc.config import ModelConfig
from sgloc.nn.cells import State, make_cell
from sgloc.nn.encoder import linear, recurrent_masks
from sgloc.nn.mixture import NUM_PEN_STATES
from sgloc.nn.sequence import TimeMajor, run_cell
from sgloc.random import Purpose

ROW_SIZE = 5
PEN_DOWN, PEN_LIFT, PEN_END = range(NUM_PEN_STATES)


def start_rows(num_sketches: int, like: Tensor) -> Tensor:
    """The rows before the first: (0, 0, 1, 0, 0), [n, 5] of the type and device of `like`."""
    rows = like.new_zeros(num_sketches, ROW_SIZE)
    rows[:, 2 + PEN_DOWN] = 1
    return rows


class Decoder(nn.Module):
    """Draws sketches row by row; a row is stroke-5 (x, y, p1, p2, p3) in absolute normalised coordinates."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.keep = config.decoder.recurrent_keep
        size = config.decoder.hidden_size
        self.cell = make_cell(
            config.decoder.cell, ROW_SIZE + config.latent_size, size, config.hyper_size, config.hyper_embedding_size
        )
        self.initial_state = linear(config.latent_size, sum(self.cell.state_sizes))
        self.output = linear(size, NUM_PEN_STATES + 6 * config.decoder.num_mixtures)

    def first_state(self, y: Tensor) -> Tensor:
        """Flat initial state for codes y [n, Z]: [n, sum of state sizes]."""
        return torch.tanh(self.initial_state(y))

    def forward(self, y: Tensor, inputs: Tensor, layout: TimeMajor, random_key: Tensor) -> Tensor:
        """Teacher forcing: raw outputs for given input rows.

        Args:
            y: [B, Z], codes.
            inputs: [R, 5], the row before the one to draw, time-major.
            layout: which sketch and step each row is.
            random_key: int64 [B], for recurrent dropout in training.

        Returns:
            [R, 3 + 6 m], time-major, as `sgloc.nn.mixture.split_output` reads them.
        """
        mask = None
        if self.training and self.keep < 1:
            mask = recurrent_masks(self.cell, random_key[layout.sequence], Purpose.DECODER, layout.step, self.keep)
        projected = self.cell.project(inputs) + F.embedding(layout.sequence, self.cell.project(y, ROW_SIZE))
        outputs = run_cell(self.cell, projected, layout, self.first_state(y), mask)
        return self.output(outputs)  # type: ignore[no-any-return]

    def step(self, row: Tensor, projected_code: Tensor, state: State) -> tuple[Tensor, State]:
        """One free-running step of n sketches: previous rows [n, 5], `cell.project(y, 5)` [n, G] and state, to raw
        outputs [n, 3 + 6 m] and state."""
        hidden, state = self.cell.step(self.cell.project(row) + projected_code, state, None)
        return self.output(hidden), state
