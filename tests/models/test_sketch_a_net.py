"""Sketch-a-Net: layer shapes, dropout, and that it learns (METHOD 10)."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgloc import random
from sgloc.models.sketch_a_net.network import SketchANet
from sgloc.random import Purpose
from sgloc.sketch.raster import RasterBatch


def make_batch(size: int = 6) -> RasterBatch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 225, 225), generator=generator, dtype=torch.uint8)
    return RasterBatch(images, torch.arange(size) % 3, torch.arange(size) + 7)


def literal_logits(model: SketchANet, images: Tensor, masks: list[Tensor] | None = None) -> Tensor:
    """Compute the logits literally as METHOD 10 defines them."""
    weights = list(model.convolutions.parameters())
    c = [(weights[2 * i], weights[2 * i + 1]) for i in range(7)]
    x = images[:, None].double() / 255
    x = F.max_pool2d(F.relu(F.conv2d(x, *c[0], stride=3)), 3, 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, *c[1])), 3, 2)
    x = F.relu(F.conv2d(x, *c[2], padding=1))
    x = F.relu(F.conv2d(x, *c[3], padding=1))
    x = F.max_pool2d(F.relu(F.conv2d(x, *c[4], padding=1)), 3, 2)
    for number in (5, 6):
        x = F.relu(F.conv2d(x, *c[number]))
        if masks is not None:
            x = x * masks[number - 5][:, :, None, None]
    return F.conv2d(x, model.output.weight[:, :, None, None], model.output.bias)[:, :, 0, 0]


def test_the_published_sizes() -> None:
    shapes = [tuple(weight.shape) for weight in SketchANet(250).parameters() if weight.ndim > 1]
    assert shapes == [
        (64, 1, 15, 15),
        (128, 64, 5, 5),
        (256, 128, 3, 3),
        (256, 256, 3, 3),
        (256, 256, 3, 3),
        (512, 256, 7, 7),
        (512, 512, 1, 1),
        (250, 512),
    ]


@pytest.mark.parametrize("training", [False, True])
def test_logits_and_losses_are_those_of_the_method(training: bool) -> None:
    torch.manual_seed(0)
    model, batch = SketchANet(3, width=4).double().train(training), make_batch()
    masks = None
    if training:
        keys = random.fold(batch.random_key, Purpose.CLASSIFIER)
        masks = [random.keep_mask(random.fold(keys, number), 32, 0.5) for number in (5, 6)]
        assert 0.2 < float((masks[0] == 0).float().mean()) < 0.8
    expected = literal_logits(model, batch.images, masks)
    losses = model(batch)
    torch.testing.assert_close(
        losses.total, F.cross_entropy(expected, batch.labels, reduction="sum").float(), rtol=1e-5, atol=1e-5
    )
    assert losses.accuracy == (expected.argmax(1) == batch.labels).sum()


@pytest.mark.parametrize("num_parts", [2, 4, 9])
def test_parts_change_nothing(num_parts: int) -> None:
    results = []
    for parts in (1, num_parts):
        torch.manual_seed(0)
        model = SketchANet(3, width=2).double()
        losses = model(make_batch(), parts)
        losses.total.backward()
        results.append((losses, [weight.grad for weight in model.parameters()]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-7)


def test_it_learns_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    model, batch = SketchANet(3, width=4, keep=0.8), make_batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(60):
        optimizer.zero_grad()
        # New dropout masks at each step.
        model(dataclasses.replace(batch, random_key=batch.random_key + 100 * step)).total.backward()
        optimizer.step()
    with torch.no_grad():
        assert model.eval()(batch).accuracy == len(batch)
