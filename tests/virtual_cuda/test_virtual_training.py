"""Training on the virtual device: operations that a GPU rejects raise an error, and the numbers equal the CPU's."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.virtual_cuda.runs import assert_as_on_a_cpu, training
from tests.virtual_cuda.start import finish, run_commands, start

# The options in which each run differs from the default.
OTHERS: dict[str, dict[str, Any]] = {
    "accumulation": {"train__accumulation": 3, "train__checkpoint_decoder": "true"},
    "an LSTM without dropout": {"model__encoder__recurrent_keep": 1.0},
    "layer norm": {"model__encoder__cell": "layer_norm", "model__decoder__cell": "layer_norm"},
    "hyper encoder": {"model__encoder__cell": "hyper", "model__decoder__cell": "lstm"},
    "complete graph": {"model__graph": "complete"},
    "nearest graph": {"model__graph": "nearest"},
    "temporal graph": {"model__graph": "temporal"},
    "no graph": {"model__graph": "none"},
    "relation of middles": {"model__graph_relation": "middle", "model__graph_mean": "true"},
    "nodes of few points": {"model__max_node_points": 8},
    "loss on padding": {"loss__pen_loss_on_padding": "true", "loss__kl_weight": 0.5},
    "moved strokes": {"data__disturb": 0.3},
}


def test_two_ranks_start_train_validate_save_and_resume_by_default(tiny_shards: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "cuda"
    commands = [training(run_dir, tiny_shards, "cuda", num_steps) for num_steps in (2, 4)]
    said = run_commands(*commands, num_ranks=2)
    assert "DDP over nccl, 2 process(es)" in said[0]
    assert "resuming from" in said[0]
    assert_as_on_a_cpu(run_dir, tiny_shards, tmp_path, 4)


@pytest.fixture(scope="module")
def others(tiny_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with all these runs, made by one process on the virtual device."""
    folder: Path = tmp_path_factory.mktemp("others")
    run_commands(*(training(folder / name, tiny_shards, "cuda", 2, **options) for name, options in OTHERS.items()))
    return folder


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", OTHERS)
def test_every_kind_of_run_is_that_of_a_cpu(name: str, others: Path, tiny_shards: str, tmp_path: Path) -> None:
    assert_as_on_a_cpu(others / name, tiny_shards, tmp_path, 2, **OTHERS[name])


@pytest.mark.exhaustive
def test_bfloat16_is_near_a_cpu(tiny_shards: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "cuda"
    run_commands(training(run_dir, tiny_shards, "cuda", 2, train__precision="bfloat16"))
    # Autocast casts different operations on CUDA than on the CPU.
    assert_as_on_a_cpu(run_dir, tiny_shards, tmp_path, 2, close=0.02, train__precision="bfloat16")


@pytest.mark.exhaustive
def test_checks_for_a_gpu_pass_on_the_virtual_one(tmp_path: Path) -> None:
    names = ["machine", "collectives", "kernels", "gradients", "float32", "retrieval", "resume", "commands"]
    words = ["-m", "tests.virtual_cuda.study", str(tmp_path), *names]
    (said,) = finish(start(*words, TORCH_ALLOW_TF32_CUBLAS_OVERRIDE="1"))
    found = json.loads(said.splitlines()[-1])
    assert {name: found[name]["status"] for name in names} == dict.fromkeys(names, "passed"), said
