"""Training losses recorded from the first implementation, which ran step by step with plain autograd: optimisations
must not change the arithmetic."""

import pytest
import torch

from sgloc import random
from sgloc.models.sketchgloc.config import CellName, DecoderConfig, EncoderConfig, ModelConfig
from sgloc.models.sketchgloc.network import SketchGloc
from tests.batches import make_batch

STROKES = [[3, 1, 4], [2], [5, 2, 1, 3, 2], [7, 7]]
# Losses at steps 1, 10, 20 and 40.
LOSSES: dict[CellName, list[float]] = {
    "lstm": [40.821934775438216, 38.26735874746965, 35.94205592189746, 32.272267151421865],
    "layer_norm": [37.31222884995444, 35.492250318028105, 34.42856920277135, 32.12695396562824],
    "hyper": [39.79861819367254, 38.13527501960372, 37.0118151320016, 35.34296798830604],
}


def training_losses(name: CellName) -> list[float]:
    """Return the losses of 40 Adam steps in float64; the initial weights do not depend on the PyTorch version."""
    config = ModelConfig(
        EncoderConfig(name, 6, 0.9),
        DecoderConfig(name, 8, 0.9, num_mixtures=3),
        latent_size=5,
        hyper_size=4,
        hyper_embedding_size=3,
        # The first implementation applied dropout to both.
        hyper_dropout="both",
    )
    model = SketchGloc(config).double()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            key = random.fold(7, number)
            values = random.normal(key, torch.arange(parameter.numel())).double()
            parameter.copy_(0.3 * values.view(parameter.shape))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    sketches, losses = make_batch(STROKES), []
    for _ in range(40):
        optimizer.zero_grad()
        loss = model(sketches).total / len(sketches)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", LOSSES)
def test_training_losses_are_what_they_were(name: CellName) -> None:
    losses = training_losses(name)
    torch.testing.assert_close([losses[step - 1] for step in (1, 10, 20, 40)], LOSSES[name], rtol=1e-10, atol=0)
