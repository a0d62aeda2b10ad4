"""Compiled steps give the same results as eager steps, with few compiled graphs."""

import shutil

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from sgloc.models.sketchgloc.config import CellName
from sgloc.nn.recurrent.cells import Cell
from sgloc.nn.recurrent.compiled import CompiledSteps, pad, padded, round_up
from sgloc.nn.recurrent.recurrence import Steps
from sgloc.nn.recurrent.sequence import TimeMajor
from tests.batches import make_batch
from tests.nn.models import STROKES, make_model
from tests.nn.recurrent.cells import CELLS_AND_DROPS, HIDDEN, INPUT, LENGTHS, random_cell


def test_batch_sizes_are_rounded_up_to_few() -> None:
    sizes = [round_up(number) for number in range(1, 1025)]
    assert all(number <= size < 1.5 * number for number, size in enumerate(sizes, start=1))
    assert sorted(set(sizes)) == sorted({1} | {2**k for k in range(1, 11)} | {3 * 2**k for k in range(9)})


def test_padding_keeps_rows_in_their_steps() -> None:
    steps, rows = padded(Steps([5, 5, 3, 1], False), torch.device("cpu"))
    assert steps == Steps([6, 6, 3, 1], False)
    assert rows.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15]
    values = torch.arange(1.0, 15.0)[:, None]
    found = pad(values, steps, rows)[:, 0]
    assert found[rows].tolist() == values[:, 0].tolist()
    assert found.count_nonzero() == 14


def outputs_and_gradients(
    cell: Cell, lengths: list[int], *, has_state: bool, has_mask: bool, segment: int | None
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    dtype, num_rows = next(cell.parameters()).dtype, sum(lengths)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    layout = TimeMajor.from_lengths(torch.tensor(lengths))
    inputs = draw(num_rows, INPUT).requires_grad_()
    state = draw(len(lengths), sum(cell.state_sizes)).requires_grad_() if has_state else None
    mask = draw(num_rows, cell.mask_size) if has_mask else None
    outputs = cell.run(cell.project(inputs), layout, state, mask, segment)
    leaves = [inputs, *cell.parameters(), *([] if state is None else [state])]
    return [outputs, *torch.autograd.grad((outputs * draw(num_rows, HIDDEN)).sum(), leaves)]


@pytest.mark.parametrize(("name", "drop_both"), CELLS_AND_DROPS)
def test_outputs_and_gradients_are_those_of_plain_steps(name: CellName, drop_both: bool) -> None:
    cell, counter = random_cell(name, drop_both=drop_both), CompileCounter()
    cases = [
        {"has_state": has_state, "has_mask": has_mask, "segment": segment}
        for has_state, has_mask, segment in [
            (True, True, None),
            (False, True, None),
            (True, False, 2),
            (False, False, 2),
        ]
    ]
    plain = [outputs_and_gradients(cell, LENGTHS, **case) for case in cases]  # type: ignore[arg-type]
    cell.compiled_steps = CompiledSteps(counter)
    for case, expected in zip(cases, plain, strict=True):
        for mine, theirs in zip(outputs_and_gradients(cell, LENGTHS, **case), expected, strict=True):  # type: ignore[arg-type]
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)
    # Forward and backward graphs for batches of 1, 3, 4 and 6; dropout, initial states and segments add none.
    assert counter.frame_count == 2 * 4


def test_few_graphs_serve_many_batches() -> None:
    cell, counter = random_cell("layer_norm"), CompileCounter()
    cell.compiled_steps = CompiledSteps(counter)
    generator = np.random.default_rng(0)
    batches = [generator.integers(1, 7, size=generator.integers(1, 41)).tolist() for _ in range(12)]
    for _ in range(2):
        for lengths in batches:
            outputs_and_gradients(cell, lengths, has_state=True, has_mask=True, segment=None)
        num_graphs = counter.frame_count
    occurring = {size for lengths in batches for size in TimeMajor.from_lengths(torch.tensor(lengths)).batch_sizes}
    assert num_graphs == 2 * len({round_up(size) for size in occurring})
    assert num_graphs < 2 * len(occurring)


def test_a_whole_model() -> None:
    sketches = make_batch(STROKES)
    results = []
    for compiled in (False, True):
        model = make_model("lstm", "hyper")
        names = list(model.state_dict())
        if compiled:
            model.compile_steps(CompileCounter())
        assert list(model.state_dict()) == names
        model.checkpoint_decoder = True
        losses = model(sketches)
        losses.total.backward()
        results.append([*losses, *(parameter.grad for parameter in model.parameters())])
    for plain, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_by_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler; install the Debian package g++")
    # Starting parallel compile workers takes longer than compiling this small cell.
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    cell = random_cell("hyper").float()
    plain = outputs_and_gradients(cell, [2, 2, 1], has_state=True, has_mask=True, segment=None)
    cell.compiled_steps = CompiledSteps("inductor")
    mine = outputs_and_gradients(cell, [2, 2, 1], has_state=True, has_mask=True, segment=None)
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
