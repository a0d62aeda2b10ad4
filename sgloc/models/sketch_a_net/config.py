"""The options of Sketch-a-Net."""

from dataclasses import dataclass, field
from typing import Literal

from sgloc.config import Options, RunConfig, TrainConfig, option


@dataclass(frozen=True)
class SketchANetConfig(Options, section="model"):
    """Sketch-a-Net's shape (METHOD 10). The defaults are the published sizes."""

    kind: Literal["sketch_a_net"] = "sketch_a_net"
    """Name of the model."""
    width: int = option(64, at_least=1)
    """Channels of the first layer; the others have 2, 4, 4, 4, 8 and 8 times as many. A quarter of it takes a sixteenth
    of the time."""
    keep: float = option(0.5, above=0, at_most=1)
    """Probability that dropout keeps a unit; 1 turns it off."""


@dataclass(frozen=True)
class RasterConfig(Options, section="raster"):
    """How strokes become images of 225 x 225, and how these are varied in training."""

    line_width: int = option(2, at_least=1, at_most=50)
    """Of the pen, in pixels."""
    stretch: float = option(0.1, at_least=0, below=1)
    """x and y are scaled by factors from 1 - this to 1 + this."""
    rotate: float = option(10.0, at_least=0, at_most=180)
    """Most degrees by which a sketch is rotated, either way."""
    shift: float = option(10.0, at_least=0, at_most=100)
    """Most pixels by which it is moved along x and along y, either way."""
    flip: bool = True
    """Mirror every other sketch, left to right."""


@dataclass(frozen=True)
class ClassifierConfig(RunConfig):
    """A run that trains a classifier."""

    model: SketchANetConfig = field(default_factory=SketchANetConfig)
    raster: RasterConfig = field(default_factory=RasterConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(run="runs/classifier"))
