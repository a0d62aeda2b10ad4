"""Training on the virtual device: what a GPU would refuse is refused, and the numbers are a CPU's."""

from pathlib import Path
from typing import Any

import pytest

from sgloc.cli import main
from tests.train.launch import records
from tests.virtual_cuda.start import run_commands

# Everything else is as it is by default.
SMALL = {
    "model.encoder.hidden_size": 8,
    "model.decoder.hidden_size": 12,
    "model.latent_size": 6,
    "model.hyper_size": 8,
    "model.hyper_embedding_size": 4,
    "data.validation_limit": 8,
    "train.global_batch": 8,
    "train.log_every": 1,
    "train.validate_every": 2,
    "train.checkpoint_every": 2,
    "log.gallery": 2,
}
_CLOSE = 1e-5


def training(run_dir: Path, shards: str, device: str, num_steps: int, **options: Any) -> list[str]:
    """Words of a training; options with __ for dots."""
    chosen = SMALL | {name.replace("__", "."): value for name, value in options.items()}
    chosen |= {"data.path": shards, "train.run_dir": run_dir, "train.device": device, "train.num_steps": num_steps}
    return ["train", *(f"--{name}={value}" for name, value in chosen.items())]


def losses(run_dir: Path) -> list[list[float]]:
    """Of each step, then of each validation."""
    names = {"train": ("loss", "mixture", "pen", "gradient_norm"), "validation": ("loss", "mixture", "pen")}
    return [[line[name] for name in names[event]] for event in names for line in records(run_dir, event)]


def assert_as_on_a_cpu(found: Path, shards: str, folder: Path, num_steps: int, **options: Any) -> None:
    """Compare with a run of one process on the CPU."""
    main(training(folder / "cpu", shards, "cpu", num_steps, **options))
    expected = losses(folder / "cpu")
    assert len(expected) == num_steps + num_steps // 2
    assert losses(found) == [pytest.approx(line, rel=_CLOSE, abs=_CLOSE) for line in expected]


def test_two_ranks_start_train_validate_save_and_resume_by_default(sample_shards: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "cuda"
    commands = [training(run_dir, sample_shards, "cuda", num_steps) for num_steps in (2, 4)]
    said = run_commands(*commands, num_ranks=2)
    assert "DDP over nccl, 2 process(es)" in said[0]
    assert "resuming from" in said[0]
    assert_as_on_a_cpu(run_dir, sample_shards, tmp_path, 4)
