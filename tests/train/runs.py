"""Small trainings in the test's own process: their configuration and the records they log."""

import json
from pathlib import Path
from typing import Any

from sgloc import log
from sgloc.config import RunConfig
from sgloc.models.sketchgloc.config import Config, DataConfig, DecoderConfig, EncoderConfig, ModelConfig, TrainConfig
from sgloc.models.sketchgloc.recipe import SketchGlocRecipe
from sgloc.train import trainer
from sgloc.train.recipe import Recipe
from sgloc.train.trainer import Trainer

MODEL = ModelConfig(EncoderConfig("lstm", 8), DecoderConfig("lstm", 12, num_mixtures=3), latent_size=6)


def make_config(shards: str, run_dir: Path, **options: Any) -> Config:
    """Return the configuration of a training of eight steps; `options` override fields of its TrainConfig."""
    every = {"log_every": 1, "validate_every": 4, "checkpoint_every": 100, "num_steps": 8, "global_batch": 16}
    training = TrainConfig(run=str(run_dir), device="cpu", **{**every, **options})
    return Config(model=MODEL, data=DataConfig(path=shards, disturb=0.1), train=training)


def train(config: RunConfig, resume: str, recipe: Recipe | None = None) -> None:
    """Train in this process, with SketchGloc's recipe unless another is passed, and log as the command line does."""
    log.configure()
    trainer.train(config, resume, recipe or SketchGlocRecipe())


def open_run(config: RunConfig, resume: str) -> Trainer:
    """Open a SketchGloc run without training it, and log as the command line does."""
    log.configure()
    return Trainer(config, resume, SketchGlocRecipe())


def records(run_dir: Path, event: str) -> list[dict[str, Any]]:
    """Return the records of one event from a finished run's log."""
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == event]
