"""Options of Sketch-a-Net."""

from dataclasses import dataclass, field
from typing import Literal

from sgloc.config import Options, RunConfig, TrainConfig, option


@dataclass(frozen=True)
class SketchANetConfig(Options, section="model"):
    """Model architecture (METHOD 10); the defaults are the published sizes."""

    kind: Literal["sketch_a_net"] = "sketch_a_net"
    """Name of the model."""
    width: int = option(64, at_least=1)
    """Channels of the first layer; the others have 2, 4, 4, 4, 8 and 8 times as many. A quarter of the width takes a
    sixteenth of the time."""
    keep: float = option(0.5, above=0, at_most=1)
    """Probability that dropout keeps a unit; 1 disables dropout."""


@dataclass(frozen=True)
class RasterConfig(Options, section="raster"):
    """Rasterisation of strokes to images of 225 x 225 pixels, and augmentation in training."""

    line_width: int = option(2, at_least=1, at_most=50)
    """Width of the pen, in pixels."""
    stretch: float = option(0.1, at_least=0, below=1)
    """In training, scale x and y by random factors between 1 - stretch and 1 + stretch; 0 disables."""
    rotate: float = option(10.0, at_least=0, at_most=180)
    """In training, rotate a sketch by a random angle of up to this many degrees either way; 0 disables."""
    shift: float = option(10.0, at_least=0, at_most=100)
    """In training, shift a sketch along x and along y by up to this many pixels either way; 0 disables."""
    flip: bool = True
    """In training, mirror sketches left to right at random, on average every other one."""


@dataclass(frozen=True)
class ClassifierConfig(RunConfig):
    """Configuration of a run that trains a Sketch-a-Net classifier."""

    model: SketchANetConfig = field(default_factory=SketchANetConfig)
    raster: RasterConfig = field(default_factory=RasterConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(run="runs/classifier"))
