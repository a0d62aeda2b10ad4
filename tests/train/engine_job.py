"""The job that torchrun starts on each rank for the engine tests; it exercises all engines in turn."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgloc import dist
from sgloc.config import OptimizerConfig
from sgloc.models.sketchgloc.config import Config, DecoderConfig, EncoderConfig, ModelConfig, TrainConfig
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.sketch.ragged import SketchBatch
from sgloc.train.engine import Engine, open_engine
from tests.batches import make_batch
from tests.patience import PATIENCE

Tensors = dict[str, Tensor]
# For each step, the loss of the global batch and the norm of its gradient.
Losses = list[tuple[float, float]]

CPU = torch.device("cpu")
CONFIGS = Path(__file__).parents[2] / "configs" / "deepspeed"
ENGINES = ("", *(str(CONFIGS / f"zero{stage}.json") for stage in range(4)))
NUM_STEPS, MIDDLE, LATER = 50, 5, 10
# Odd, so that the ranks' shares differ in size.
GLOBAL_BATCH = 9
_RATE = 0.01
# No size is divisible by the number of ranks.
_MODEL = ModelConfig(EncoderConfig("lstm", 5), DecoderConfig("layer_norm", 7, num_mixtures=3), latent_size=3)
# The hyper cells pack several variables of the original into one tensor.
_HYPER = ModelConfig(
    EncoderConfig("hyper", 5, 1.0),
    DecoderConfig("hyper", 7, 1.0, num_mixtures=3),
    latent_size=3,
    hyper_size=3,
    hyper_embedding_size=2,
)
# In the first step, some variables' gradients exceed this norm and others do not.
CLIP_NORM = 0.1


def make_config(deepspeed: str = "", **options: Any) -> Config:
    training = TrainConfig(global_batch=GLOBAL_BATCH, deepspeed=deepspeed, **options)
    return Config(model=_MODEL, optimizer=OptimizerConfig(learning_rate=_RATE), train=training)


def make_hyper_config(deepspeed: str = "", clip_norm: float = CLIP_NORM, **options: Any) -> Config:
    """Return a configuration that clips the gradient of each variable separately."""
    optimizer = OptimizerConfig(learning_rate=_RATE, clip_norm=clip_norm, clip_by="variable")
    return dataclasses.replace(make_config(deepspeed, **options), model=_HYPER, optimizer=optimizer)


@contextlib.contextmanager
def opened(config: Config, world_size: int, seed: int = 0) -> Iterator[Engine]:
    """Open a new engine whose initial weights are drawn from the given seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SketchGloc(config.model, config.loss, checkpoint_decoder=config.train.checkpoint_decoder)
    engine = open_engine(model, config, dist.Group(CPU))
    try:
        yield engine
    finally:
        engine.close()


def batch_of(step: int, rank: int, world_size: int) -> SketchBatch:
    """Return a rank's share of a step's global batch."""
    generator = torch.Generator().manual_seed(step)
    strokes = [torch.randint(1, 5, (1 + step % 3,), generator=generator).tolist() for _ in range(GLOBAL_BATCH)]
    whole = make_batch(strokes, seed=step, dtype=torch.float32)
    return whole.part(GLOBAL_BATCH * rank // world_size, GLOBAL_BATCH * (rank + 1) // world_size)


def take_steps(engine: Engine, first: int, last: int, rank: int = 0, world_size: int = 1) -> Losses:
    """Take steps `first` to `last` - 1."""
    losses = []
    for step in range(first, last):
        terms, norm = engine.backward(batch_of(step, rank, world_size))
        losses.append((dist.Group(CPU).sum([float(terms.total)])[0] / GLOBAL_BATCH, float(norm)))
        assert dist.Group(CPU).max(float(norm)) == float(norm)
        engine.update(_RATE)
    return losses


@torch.no_grad()
def validate(engine: Engine, num_calls: int = 1) -> float:
    """Compute a validation loss on this rank alone; the number of forward calls may differ between ranks."""
    with engine.whole_model() as model:
        model.eval()
        losses = [float(model(batch_of(0, 0, 1)).total) for _ in range(num_calls)]
        model.train()
    return losses[-1]


def everything(engine: Engine) -> Tensors:
    return engine.snapshot(lambda name: True)


def are_equal(first: Tensors, second: Tensors) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Job:
    """The operations that are tried on each engine.

    Args:
        rank, world_size: Rank of this process, and the number of ranks.
        others: Tensors of an engine with a different world size after MIDDLE steps.
    """

    def __init__(self, rank: int, world_size: int, others: Tensors) -> None:
        self.rank, self.world_size, self.others = rank, world_size, others
        self.fresh: Tensors = {}
        self.middle: Tensors = {}
        self.later: Tensors = {}

    def steps(self, engine: Engine, first: int, last: int) -> Losses:
        return take_steps(engine, first, last, self.rank, self.world_size)

    def run(self, deepspeed: str) -> dict[str, Any]:
        config = make_config(deepspeed)
        with opened(config, self.world_size) as engine:
            told: dict[str, Any] = {"name": engine.name, "layout": engine.layout()}
            told["fresh"] = self.fresh = everything(engine)
            told["losses"] = self.steps(engine, 0, MIDDLE)
            told["middle"] = self.middle = everything(engine)
            told["losses"] += self.steps(engine, MIDDLE, LATER)
            self.later = everything(engine)
            told["losses"] += self.steps(engine, LATER, NUM_STEPS)
            told["validation"] = validate(engine, 1 + self.rank)
        with opened(config, self.world_size, seed=1) as engine:
            told |= self.resume(engine)
            told |= self.discard(engine)
            engine.restore(self.others.items())
            told["exchanged"] = self.steps(engine, MIDDLE, MIDDLE + 20)
        ways: dict[str, dict[str, Any]] = {
            "parts": {"accumulation": 4, "checkpoint_decoder": True},
            "bfloat16": {"precision": "bfloat16"},
        }
        for name, options in ways.items():
            with opened(make_config(deepspeed, **options), self.world_size) as engine:
                told[name] = self.steps(engine, 0, 3)
        with opened(make_hyper_config(deepspeed, accumulation=4), self.world_size) as engine:
            told["clipped"] = self.clip(engine)
        return told

    def clip(self, engine: Engine) -> dict[str, Any]:
        """Take steps with per-variable clipping, then repeat all but the first from a restored snapshot.

        Returns:
            The losses, the tensors after the first and after the last step, and whether the repetition ended with the
            same tensors.
        """
        losses = self.steps(engine, 0, 1)
        first = everything(engine)
        losses += self.steps(engine, 1, 4)
        last = everything(engine)
        engine.restore(first.items())
        self.steps(engine, 1, 4)
        return {"losses": losses, "first": first, "last": last, "same again": are_equal(everything(engine), last)}

    def resume(self, engine: Engine) -> dict[str, Any]:
        """Restore snapshots of an earlier engine into one with different weights: from mid-run, then from the start.

        Returns:
            Whether the engine holds the restored tensors, the losses of the steps after them, and whether both
            continuations reach the same tensors as the earlier engine.
        """
        engine.restore(self.middle.items())
        held = are_equal(everything(engine), self.middle)
        resumed = self.steps(engine, MIDDLE, LATER)
        told = {"holds": held, "resumed": resumed, "same later": are_equal(everything(engine), self.later)}
        engine.restore(self.fresh.items())
        self.steps(engine, 0, MIDDLE)
        return told | {"same from the start": are_equal(everything(engine), self.middle)}

    def discard(self, engine: Engine) -> dict[str, Any]:
        """Discard a finite and a non-finite gradient, then continue training.

        Returns:
            The norm of the non-finite gradient, whether `backward` and `discard` left the tensors unchanged, and the
            losses of the following steps.
        """
        batch = batch_of(NUM_STEPS, self.rank, self.world_size)
        engine.backward(batch)
        engine.discard()
        if self.rank == self.world_size - 1:
            batch.targets[0] = torch.nan
        _, norm = engine.backward(batch)
        weights = {name for name in self.middle if "running" not in name}
        before = engine.snapshot(weights.__contains__)
        engine.discard()
        return {
            "norm of nan": float(norm),
            "backward changes nothing": are_equal(before, {name: self.middle[name] for name in before}),
            "discard changes nothing": are_equal(everything(engine), self.middle),
            "goes on": self.steps(engine, MIDDLE, LATER),
        }


def main() -> None:
    """Run the job for every engine; the arguments are a file of tensors to restore and the file for the results."""
    source, target = sys.argv[1:]
    torch.set_num_threads(1)
    placement = dist.resolve_placement(os.environ)
    with dist.process_group(placement, CPU, timeout=PATIENCE):
        job = Job(placement.rank, placement.world_size, torch.load(source))
        told = {Path(engine).stem or "ddp": job.run(engine) for engine in ENGINES}
        if placement.rank == 0:
            torch.save(told, target)


if __name__ == "__main__":
    main()
