"""Sketch-a-Net, the classifier behind Rec (METHOD 10; Yu et al. 2015 and 2017)."""

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgloc import random
from sgloc.nn.recomputed import of_each_part, parts_of
from sgloc.random import Purpose
from sgloc.sketch.raster import RASTER_SIZE, RasterBatch
from sgloc.train.recipe import Trainable


@dataclass(frozen=True)
class _Convolution:
    """One layer.

    Attributes:
        channels: output channels, as a multiple of the first layer's.
        size: kernel size.
        stride: stride of the convolution.
        padding: padding of the convolution.
        pools: whether max pooling follows.
        drops: whether dropout follows.
    """

    channels: int
    size: int
    stride: int = 1
    padding: int = 0
    pools: bool = False
    drops: bool = False


_LAYERS = (
    _Convolution(1, 15, stride=3, pools=True),
    _Convolution(2, 5, pools=True),
    _Convolution(4, 3, padding=1),
    _Convolution(4, 3, padding=1),
    _Convolution(4, 3, padding=1, pools=True),
    _Convolution(8, 7, drops=True),
    _Convolution(8, 1, drops=True),
)


class ClassifierSums(NamedTuple):
    """Loss terms summed over the sketches of a batch; 0-dimensional.

    Attributes:
        accuracy: number of sketches whose likeliest category is the right one.
        total: the loss to minimise, cross entropy in nats.
    """

    accuracy: Tensor
    total: Tensor


class SketchANet(Trainable):
    """Sketch-a-Net.

    Args:
        num_classes: number of categories.
        width: channels of the first layer; 64 in the published network.
        keep: probability that dropout keeps a unit; 0.5 in the published network.
    """

    loss_names: ClassVar[tuple[str, ...]] = ClassifierSums._fields

    def __init__(self, num_classes: int, width: int = 64, keep: float = 0.5) -> None:
        super().__init__()
        self.keep = keep
        channels = [1, *(layer.channels * width for layer in _LAYERS)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*pair, layer.size, layer.stride, layer.padding)
            for pair, layer in zip(itertools.pairwise(channels), _LAYERS, strict=True)
        )
        # Only one pixel is left here, so the last 1 x 1 convolution is a linear layer.
        self.output = nn.Linear(channels[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=math.sqrt(2 / module.weight[0].numel()))
                module.bias = nn.Parameter(torch.zeros(len(module.weight)))

    def logits(self, images: Tensor, random_key: Tensor | None = None) -> Tensor:
        """Compute the logits of the categories.

        Args:
            images: uint8 [B, 225, 225], bright ink on dark ground.
            random_key: int64 [B], for dropout in training; None disables dropout.

        Returns:
            float32 [B, categories].
        """
        values = images[:, None].to(self.output.weight.dtype) / 255
        for number, (layer, convolution) in enumerate(zip(_LAYERS, self.convolutions, strict=True)):
            values = F.relu(convolution(values))
            if layer.pools:
                values = F.max_pool2d(values, 3, 2)
            if layer.drops and random_key is not None:
                key = random.fold(random.fold(random_key, Purpose.CLASSIFIER), number)
                values = values * random.keep_mask(key, values.shape[1], self.keep)[:, :, None, None]
        return self.output(values.flatten(1)).float()  # type: ignore[no-any-return]

    def forward(self, batch: RasterBatch, num_parts: int = 1) -> ClassifierSums:
        """See `Trainable.forward`."""
        terms = of_each_part(self._sums, parts_of(batch, num_parts))
        return ClassifierSums(*(torch.stack(term).sum() for term in zip(*terms, strict=True)))

    def _sums(self, batch: RasterBatch) -> ClassifierSums:
        drops = self.training and self.keep < 1
        logits = self.logits(batch.images, batch.random_key if drops else None)
        is_right = logits.argmax(1) == batch.labels
        return ClassifierSums(is_right.sum().float(), F.cross_entropy(logits, batch.labels, reduction="sum"))

    def toy_batch(self) -> RasterBatch:
        """See `Trainable.toy_batch`."""
        image = torch.zeros(1, RASTER_SIZE, RASTER_SIZE, dtype=torch.uint8)
        return RasterBatch(image, torch.tensor([0]), torch.tensor([0]))
