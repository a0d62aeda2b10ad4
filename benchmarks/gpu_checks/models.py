"""Small models, batches and engines for the checks."""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_checks import Setting
from sgloc.bench.batches import drawn_manifest, opened_engine, preparation
from sgloc.bench.drawn import draw_batch
from sgloc.models.sketchgloc.config import (
    CellName,
    Config,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
)
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.ops.ragged import offsets_from_lengths
from sgloc.sketch.ragged import SketchBatch
from sgloc.tf32 import float32_products
from sgloc.train.engine import Engine

# Points of each stroke of each sketch: short strokes, a long one, many.
STROKES = ([3, 1, 4], [2], [5, 2, 1, 3, 2], [7, 7], [40], [1] * 20)


def small_model(
    encoder: CellName = "lstm",
    decoder: CellName = "hyper",
    keep: float = 0.9,
    graph: str = "grid9",
    size: int = 16,
) -> ModelConfig:
    """Return the configuration of a model with a few thousand weights."""
    return ModelConfig(
        encoder=EncoderConfig(encoder, size, keep),
        decoder=DecoderConfig(decoder, size, keep, num_mixtures=3),
        latent_size=8,
        hyper_size=8,
        hyper_embedding_size=4,
        graph=graph,
    )


def small_batch(dtype: torch.dtype) -> SketchBatch:
    """Return the sketches of STROKES with random points, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    node_offsets = offsets_from_lengths(torch.tensor([length for strokes in STROKES for length in strokes]))
    sketch_node_offsets = offsets_from_lengths(torch.tensor([len(strokes) for strokes in STROKES]))
    num_points = int(node_offsets[-1])
    points, targets = torch.randn(2, num_points, 2, generator=generator, dtype=torch.float64).to(dtype)
    pen_lift = torch.zeros(num_points, dtype=torch.bool)
    pen_lift[node_offsets[1:] - 1] = True
    return SketchBatch(
        points=points,
        targets=targets,
        pen_lift=pen_lift,
        node_offsets=node_offsets,
        sketch_node_offsets=sketch_node_offsets,
        sketch_point_offsets=node_offsets[sketch_node_offsets],
        random_key=torch.randint(-(2**62), 2**62, (len(STROKES),), generator=generator),
    )


def make_model(config: ModelConfig) -> SketchGloc:
    """Build a model, with the same random weights at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SketchGloc(config, LossConfig(kl_weight=0.5))


def training_config(setting: Setting, batch: int, **options: object) -> Config:
    """Return a configuration of the published sizes, or of small ones in a dry run.

    Args:
        setting: setting of the check.
        batch: global batch size.
        options: further options of the section `train`.
    """
    train = dataclasses.replace(TrainConfig(global_batch=batch), **options)  # type: ignore[arg-type]
    data = DataConfig(disturb=0.1)
    return Config(model=small_model() if setting.is_tiny else ModelConfig(), data=data, train=train)


@contextlib.contextmanager
def opened(setting: Setting, config: Config) -> Iterator[tuple[Engine, SketchBatch]]:
    """Yield an engine, and a synthetic batch to train on."""
    packed = draw_batch(config.train.global_batch, 0)
    manifest = drawn_manifest(packed)
    with float32_products(setting.device), opened_engine(config, manifest, setting.device) as engine:
        yield engine, preparation(config, manifest)(packed, setting.device)


def take_steps(engine: Engine, batch: SketchBatch, count: int) -> list[float]:
    """Take `count` training steps, and return the loss per sketch of each."""
    losses = []
    for _ in range(count):
        terms, _ = engine.backward(batch)
        engine.update(1e-3)
        losses.append(float(terms.total) / len(batch))
    return losses


def are_close(found: list[float], right: list[float], tolerance: float) -> bool:
    """Whether losses agree within a relative tolerance."""
    return bool(np.allclose(found, right, rtol=tolerance, atol=0))


def all_gradients(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, is_training: bool, num_parts: int = 1
) -> list[Tensor]:
    """Compute the loss and every gradient of a small batch, and return them on the CPU.

    Args:
        config: configuration of the model.
        device: device to compute on.
        dtype: dtype of weights and points.
        is_training: whether the model is in training mode.
        num_parts: number of micro-batches; more than one also checkpoints the decoder.
    """
    model = make_model(config).to(device=device, dtype=dtype).train(is_training)
    model.checkpoint_decoder = num_parts > 1
    with float32_products(device):
        losses = model(small_batch(dtype).to(device=device), num_parts)
        torch.stack([term for term in losses if term.requires_grad]).sum().backward()
    found = [losses.total.detach(), *(weight.grad for weight in model.parameters() if weight.grad is not None)]
    return [tensor.cpu() for tensor in found]
