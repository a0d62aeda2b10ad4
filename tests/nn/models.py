"""A small model with random parameters."""

from typing import Any

import torch

from sgloc.models.sketchgloc.config import CellName, DecoderConfig, EncoderConfig, LossConfig, ModelConfig
from sgloc.models.sketchgloc.network import SketchGloc

STROKES = [[3, 1, 4], [2], [5, 2, 1, 3, 2]]
KEEP = 0.7


def make_model(
    encoder: CellName, decoder: CellName, loss: LossConfig | None = None, longest: int = 0, **options: Any
) -> SketchGloc:
    torch.manual_seed(0)
    config = ModelConfig(
        EncoderConfig(encoder, 4, KEEP),
        DecoderConfig(decoder, 6, KEEP, num_mixtures=3),
        latent_size=5,
        hyper_size=3,
        hyper_embedding_size=2,
        **options,
    )
    model = SketchGloc(config, loss, longest).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
