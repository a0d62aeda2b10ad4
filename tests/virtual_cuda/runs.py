"""Small training runs on the virtual device and on the CPU."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from sgloc.cli import main
from tests.train.launch import records

# All other options have their defaults.
SMALL: Mapping[str, object] = {
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
    "log.gallery": 1,
}
_CLOSE = 1e-5


def training(run_dir: Path, shards: str, device: str, num_steps: int, **options: object) -> list[str]:
    """Return the command line of a training; the names of `options` have __ in place of dots."""
    chosen = {**SMALL, **{name.replace("__", "."): value for name, value in options.items()}}
    chosen |= {"data.path": shards, "train.run": run_dir, "train.device": device, "train.num_steps": num_steps}
    return ["train", *(f"--{name}={value}" for name, value in chosen.items())]


def losses(run_dir: Path) -> list[list[float]]:
    """Return the loss terms of each step, followed by those of each validation."""
    names = {"train": ("loss", "mixture", "pen", "gradient_norm"), "validation": ("loss", "mixture", "pen")}
    return [[line[name] for name in names[event]] for event in names for line in records(run_dir, event)]


def assert_as_on_a_cpu(
    found: Path, shards: str, folder: Path, num_steps: int, close: float = _CLOSE, **options: object
) -> None:
    """Compare a run with the same run in one process on the CPU."""
    main(training(folder / "cpu", shards, "cpu", num_steps, **options))
    expected = losses(folder / "cpu")
    assert len(expected) == num_steps + num_steps // 2
    assert losses(found) == [pytest.approx(line, rel=close, abs=close) for line in expected]
