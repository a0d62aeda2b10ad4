"""The training configuration of a small classifier."""

from pathlib import Path
from typing import Any

from sgloc.config import DataConfig, OptimizerConfig, TrainConfig
from sgloc.models.sketch_a_net.config import ClassifierConfig, SketchANetConfig


def make_config(shards: str, run_dir: Path, **options: Any) -> ClassifierConfig:
    every = {"num_steps": 6, "global_batch": 12, "log_every": 1, "validate_every": 3, "checkpoint_every": 2}
    return ClassifierConfig(
        model=SketchANetConfig(width=2),
        data=DataConfig(path=shards),
        optimizer=OptimizerConfig(learning_rate=2e-3),
        train=TrainConfig(run=str(run_dir), device="cpu", **{**every, **options}),
    )
