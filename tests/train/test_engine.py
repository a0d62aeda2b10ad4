"""Engines: each takes the same steps, saves the same tensors, and can continue from any other's checkpoint."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.checkpoints import single_process
from tests.oracle import clipping
from tests.patience import PATIENCE
from tests.train.engine_job import (
    CLIP_NORM,
    LATER,
    MIDDLE,
    NUM_STEPS,
    Losses,
    Tensors,
    everything,
    make_config,
    make_hyper_config,
    opened,
    take_steps,
    validate,
)

NAMES = ("ddp", "zero0", "zero1", "zero2", "zero3")


class OneRank(NamedTuple):
    """Results of DDP on one rank: the losses, the tensors after MIDDLE steps, and the final validation loss."""

    losses: Losses
    middle: Tensors
    validation: float


@pytest.fixture(scope="module", autouse=True)
def _group() -> Iterator[None]:
    with single_process():
        yield


@pytest.fixture(scope="module")
def one_rank() -> OneRank:
    """The reference that all engines are compared with."""
    with opened(make_config(), 1) as engine:
        losses = take_steps(engine, 0, MIDDLE)
        middle = everything(engine)
        return OneRank(losses + take_steps(engine, MIDDLE, NUM_STEPS), middle, validate(engine))


@pytest.fixture(scope="module")
def two_ranks(one_rank: OneRank, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The job's results on two ranks, by engine."""
    folder = tmp_path_factory.mktemp("engines")
    torch.save(one_rank.middle, folder / "others.pt")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.train.engine_job", str(folder / "others.pt"), str(folder / "told.pt")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    # DeepSpeed's banner and its warnings at every step are suppressed.
    assert done.stdout == ""
    assert "Warning" not in done.stderr
    told: dict[str, Any] = torch.load(folder / "told.pt")
    return told


def relative(losses: Losses, reference: Losses) -> float:
    """Return the largest relative difference between two sequences of losses."""
    pairs = zip(losses, reference, strict=True)
    return max(abs(loss - other) / abs(other) for (loss, _), (other, _) in pairs)


each = pytest.mark.parametrize("name", NAMES)


@each
def test_trains_as_ddp_on_one_rank_does(name: str, one_rank: OneRank, two_ranks: dict[str, Any]) -> None:
    losses, told = one_rank.losses, two_ranks[name]
    assert relative(told["losses"], losses) < 1e-4
    assert [norm for _, norm in told["losses"][:5]] == pytest.approx([norm for _, norm in losses[:5]], rel=1e-4)
    # The reported norm is measured before clipping, and some steps are clipped.
    assert max(norm for _, norm in losses) > make_config().optimizer.clip_norm
    assert relative(told["parts"], losses[:3]) < 1e-6


@each
def test_computes_in_bfloat16_what_ddp_does(name: str, two_ranks: dict[str, Any]) -> None:
    losses, of_ddp = two_ranks[name]["bfloat16"], two_ranks["ddp"]["bfloat16"]
    assert relative(losses, of_ddp) < 1e-4
    assert relative(losses, two_ranks[name]["losses"][:3]) > 1e-4


@each
def test_has_the_same_tensors(name: str, two_ranks: dict[str, Any]) -> None:
    layout, of_ddp = two_ranks[name]["layout"], two_ranks["ddp"]["layout"]
    assert list(layout) == list(of_ddp)
    for key, tensor in layout.items():
        assert tensor.is_meta
        assert (tensor.shape, tensor.dtype) == (of_ddp[key].shape, of_ddp[key].dtype)
        for held in (two_ranks[name]["fresh"], two_ranks[name]["middle"]):
            assert (held[key].shape, held[key].dtype, held[key].is_cpu) == (tensor.shape, tensor.dtype, True)


@each
def test_starts_with_the_weights_it_is_given(name: str, two_ranks: dict[str, Any]) -> None:
    fresh = two_ranks[name]["fresh"]
    with opened(make_config(), 1) as engine:
        expected = everything(engine)
    assert all(torch.equal(fresh[key], tensor) for key, tensor in expected.items())
    assert not any(tensor.any() for key, tensor in fresh.items() if key.startswith("optimizer."))


@each
def test_goes_on_to_the_bit_after_a_restore(name: str, two_ranks: dict[str, Any]) -> None:
    told = two_ranks[name]
    assert told["holds"]
    assert told["resumed"] == told["losses"][MIDDLE:LATER]
    assert told["same later"]
    assert told["same from the start"]


@each
def test_discards_a_gradient_without_a_trace(name: str, two_ranks: dict[str, Any]) -> None:
    told = two_ranks[name]
    assert not torch.isfinite(torch.tensor(told["norm of nan"]))
    assert told["backward changes nothing"]
    assert told["discard changes nothing"]
    assert told["goes on"] == told["losses"][MIDDLE:LATER]


@each
def test_goes_on_from_what_ddp_on_one_rank_left(name: str, one_rank: OneRank, two_ranks: dict[str, Any]) -> None:
    assert relative(two_ranks[name]["exchanged"][:20], one_rank.losses[MIDDLE:][:20]) < 1e-6


@each
def test_leaves_what_ddp_on_one_rank_goes_on_from(name: str, two_ranks: dict[str, Any]) -> None:
    told = two_ranks[name]
    with opened(make_config(), 1, seed=1) as engine:
        engine.restore(told["middle"].items())
        losses = take_steps(engine, MIDDLE, MIDDLE + 20)
    assert relative(losses, told["losses"][MIDDLE:][:20]) < 1e-6


@pytest.fixture(scope="module")
def clipped_on_one_rank() -> tuple[Losses, Tensors, Tensors]:
    """DDP on one rank with per-variable clipping: the losses, and the first gradient with and without clipping."""
    gradients = []
    for clip_norm in (1e9, CLIP_NORM):
        with opened(make_hyper_config(clip_norm=clip_norm), 1) as engine:
            losses = take_steps(engine, 0, 1)
            gradients.append(first_gradient(everything(engine)))
            losses += take_steps(engine, 1, 4)
    return losses, gradients[1], gradients[0]


def first_gradient(tensors: Tensors) -> Tensors:
    """Return the gradient that Adam received in its first step, recovered from its first moment."""
    end = ".exp_avg"
    return {name.removesuffix(end): 10 * value for name, value in tensors.items() if name.endswith(end)}


def test_clips_each_variable_of_the_original_by_itself(clipped_on_one_rank: tuple[Losses, Tensors, Tensors]) -> None:
    _, gradients, unclipped = clipped_on_one_rank
    is_clipped = []
    for name, gradient in gradients.items():
        whole = unclipped[name].double().numpy()
        expected = clipping.clipped(name, whole, CLIP_NORM)
        torch.testing.assert_close(gradient.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-7)
        norms = [float(np.linalg.norm(part)) for part in clipping.variables(name, whole)]
        is_clipped.append([norm > CLIP_NORM for norm in norms])
    # Some variables are clipped and some are not, also within one packed tensor.
    assert {any(parts) for parts in is_clipped} == {True, False}
    assert any(len(set(parts)) == 2 for parts in is_clipped)


@each
def test_clips_each_variable_as_ddp_on_one_rank_does(
    name: str, clipped_on_one_rank: tuple[Losses, Tensors, Tensors], two_ranks: dict[str, Any]
) -> None:
    losses, gradients, _ = clipped_on_one_rank
    told = two_ranks[name]["clipped"]
    for key, gradient in first_gradient(told["first"]).items():
        torch.testing.assert_close(gradient, gradients[key], rtol=1e-4, atol=1e-6)
    assert relative(told["losses"], losses) < 1e-5
    # The logged norm is that of the whole gradient before clipping.
    assert [norm for _, norm in told["losses"]] == pytest.approx([norm for _, norm in losses], rel=1e-4)
    assert told["same again"]


@each
def test_lends_the_whole_model(name: str, one_rank: OneRank, two_ranks: dict[str, Any]) -> None:
    assert two_ranks[name]["validation"] == pytest.approx(one_rank.validation, rel=1e-4)
