"""The cells on ragged sequences: outputs against the step-by-step oracle, and gradients, in float64."""

import numpy as np
import pytest
import torch

from sgloc.models.sketchgloc.config import CellName
from sgloc.nn.recurrent.cells import Cell, HyperLSTM
from sgloc.nn.recurrent.sequence import TimeMajor
from tests.nn.recurrent.cells import (
    CELLS,
    CELLS_AND_DROPS,
    EMBEDDING,
    HIDDEN,
    HYPER,
    INPUT,
    LENGTHS,
    oracle_parameters,
    random_cell,
    split_mask,
)
from tests.oracle import cells as oracle


@pytest.mark.parametrize(("name", "drop_both"), CELLS_AND_DROPS)
def test_ragged_run_equals_the_oracle_sequence_by_sequence(name: CellName, drop_both: bool) -> None:
    cell = random_cell(name, drop_both=drop_both)
    layout = TimeMajor.from_lengths(torch.tensor(LENGTHS))
    inputs = [torch.randn(length, INPUT, dtype=torch.float64) for length in LENGTHS]
    masks = [torch.rand(length, cell.mask_size, dtype=torch.float64) for length in LENGTHS]
    state = torch.randn(len(LENGTHS), sum(cell.state_sizes), dtype=torch.float64)
    place = list(zip(layout.sequence.tolist(), layout.step.tolist(), strict=True))
    rows = torch.stack([inputs[sequence][step] for sequence, step in place])
    mask = torch.stack([masks[sequence][step] for sequence, step in place])
    # The input is projected in two parts, as in the decoder.
    projected = cell.project(rows[:, :1]) + cell.project(rows[:, 1:], first=1)
    outputs = cell.run(projected, layout, state, mask)
    for index, length in enumerate(LENGTHS):
        expected, _ = oracle.run(
            name,
            oracle_parameters(cell),
            inputs[index].numpy(),
            state[index].numpy(),
            lambda step, index=index: split_mask(cell, masks[index][step]),  # type: ignore[misc]
        )
        mine = [row for row, (sequence, _) in enumerate(place) if sequence == index]
        assert [place[row][1] for row in mine] == list(range(length))
        np.testing.assert_allclose(outputs[mine].detach().numpy(), expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(outputs[layout.last[index]].detach().numpy(), outputs[mine[-1]].detach().numpy())


@pytest.mark.parametrize("segment", [None, 1, 2])
@pytest.mark.parametrize(("name", "drop_both"), CELLS_AND_DROPS)
def test_gradients_in_float64(name: CellName, drop_both: bool, segment: int | None) -> None:
    cell = random_cell(name, drop_both=drop_both)
    layout = TimeMajor.from_lengths(torch.tensor([2, 3, 1]))
    inputs = torch.randn(6, INPUT, dtype=torch.float64, requires_grad=True)
    state = torch.randn(3, sum(cell.state_sizes), dtype=torch.float64, requires_grad=True)
    mask = (torch.rand(6, cell.mask_size, dtype=torch.float64) < 0.9) / 0.9
    parameters = dict(cell.named_parameters())

    def run(rows: torch.Tensor, first: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        replaced = dict(zip((f"cell.{key}" for key in parameters), values, strict=True))
        outputs: torch.Tensor = torch.func.functional_call(_Run(cell, layout, mask, segment), replaced, (rows, first))
        return outputs

    assert torch.autograd.gradcheck(run, (inputs, state, *parameters.values()), atol=1e-6, fast_mode=True)


class _Run(torch.nn.Module):
    def __init__(self, cell: Cell, layout: TimeMajor, mask: torch.Tensor, segment: int | None) -> None:
        super().__init__()
        self.cell, self.layout, self.mask, self.segment = cell, layout, mask, segment

    def forward(self, rows: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return self.cell.run(self.cell.project(rows), self.layout, state, self.mask, self.segment)


@pytest.mark.parametrize("name", CELLS)
def test_gradients_from_zero_are_those_from_a_state_of_zeros(name: CellName) -> None:
    cell = random_cell(name)
    layout = TimeMajor.from_lengths(torch.tensor(LENGTHS))
    projected = torch.randn(sum(LENGTHS), cell.project(torch.zeros(1, INPUT).double()).shape[1], dtype=torch.float64)
    weights = torch.randn(sum(LENGTHS), HIDDEN, dtype=torch.float64)

    def gradients(state: torch.Tensor | None, segment: int | None) -> list[torch.Tensor]:
        rows = projected.clone().requires_grad_()
        outputs = cell.run(rows, layout, state, None, segment)
        recurrent = [value for key, value in cell.named_parameters() if key != "weight_input"]
        return list(torch.autograd.grad((outputs * weights).sum(), [rows, *recurrent]))

    zeros = torch.zeros(len(LENGTHS), sum(cell.state_sizes), dtype=torch.float64)
    expected = gradients(zeros, None)
    assert all(gradient.abs().max() > 0 for gradient in expected)
    for segment in (None, 2):
        for mine, theirs in zip(gradients(None, segment), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CELLS)
def test_autocast_multiplies_in_bfloat16_and_keeps_state_and_sums_in_float32(name: CellName) -> None:
    cell = random_cell(name).float()
    layout = TimeMajor.from_lengths(torch.tensor(LENGTHS))
    inputs = torch.randn(sum(LENGTHS), INPUT)

    def run(enabled: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs = cell.run(cell.project(inputs), layout, None, None)
        return outputs, list(torch.autograd.grad(outputs.sum(), list(cell.parameters())))

    (short, short_gradients), (full, full_gradients) = run(True), run(False)
    assert short.dtype == torch.float32
    assert 0 < (short - full).abs().max() < 0.05
    for mine, theirs in zip(short_gradients, full_gradients, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() <= 0.05 * theirs.norm() + 1e-6


@pytest.mark.parametrize("name", CELLS)
def test_without_state_and_mask_is_zeros_and_ones(name: CellName) -> None:
    cell = random_cell(name)
    layout = TimeMajor.from_lengths(torch.tensor(LENGTHS))
    projected = cell.project(torch.randn(sum(LENGTHS), INPUT, dtype=torch.float64))
    zeros = torch.zeros(len(LENGTHS), sum(cell.state_sizes), dtype=torch.float64)
    ones = torch.ones(sum(LENGTHS), cell.mask_size, dtype=torch.float64)
    torch.testing.assert_close(
        cell.run(projected, layout, None, None), cell.run(projected, layout, zeros, ones), rtol=0, atol=0
    )


def test_no_padded_step_is_computed() -> None:
    layout = TimeMajor.from_lengths(torch.tensor(LENGTHS))
    assert layout.batch_sizes == [5, 4, 3, 1, 1]
    assert layout.order.tolist() == [2, 0, 3, 4, 1]


def test_initial_values_are_the_published_ones() -> None:
    cell = HyperLSTM(INPUT, HIDDEN, HYPER, EMBEDDING)
    assert cell.scale_down_weight.abs().max() == 0
    assert (cell.scale_down_bias == 1).all()
    torch.testing.assert_close(cell.scale_up, torch.full_like(cell.scale_up, 0.1 / EMBEDDING))
    assert cell.shift_up.abs().max() == 0
    assert 0 < cell.shift_down.std() < 0.02
    for gate in cell.weight_hidden.detach().chunk(4, dim=1):
        torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN), rtol=0, atol=1e-5)
    published = HyperLSTM(5 + 128, 512, 256, 32)
    assert sum(published.state_sizes) == 2 * (512 + 256)
