"""Every option of training a classifier, with its default, unit and meaning."""

from dataclasses import dataclass, field

from sgloc.config import DataConfig, LogConfig, OptimizerConfig, TrainConfig, require
from sgloc.errors import ConfigError


@dataclass(frozen=True)
class SketchANetConfig:
    """Sketch-a-Net's shape (METHOD 10). The defaults are the published sizes."""

    width: int = 64
    """Channels of the first layer; the others have 2, 4, 4, 4, 8 and 8 times as many. A quarter of it takes a sixteenth
    of the time."""
    keep: float = 0.5
    """Probability that dropout keeps a unit; 1 turns it off."""

    def __post_init__(self) -> None:
        require(self.width >= 1, "model.width", "at least 1", self.width)
        require(0 < self.keep <= 1, "model.keep", "above 0 and at most 1", self.keep)


@dataclass(frozen=True)
class RasterConfig:
    """How strokes become images of 225 x 225, and how these are varied in training."""

    line_width: int = 2
    """Of the pen, in pixels."""
    stretch: float = 0.1
    """x and y are scaled by factors from 1 - this to 1 + this."""
    rotate: float = 10.0
    """Most degrees by which a sketch is rotated, either way."""
    shift: float = 10.0
    """Most pixels by which it is moved along x and along y, either way."""
    flip: bool = True
    """Mirror every other sketch, left to right."""

    def __post_init__(self) -> None:
        require(1 <= self.line_width <= 50, "raster.line_width", "from 1 to 50", self.line_width)
        require(0 <= self.stretch < 1, "raster.stretch", "at least 0 and below 1", self.stretch)
        require(0 <= self.rotate <= 180, "raster.rotate", "from 0 to 180", self.rotate)
        require(0 <= self.shift <= 100, "raster.shift", "from 0 to 100", self.shift)


@dataclass(frozen=True)
class ClassifierConfig:
    """A whole run that trains a classifier. What the data section says of moving and augmenting strokes is SketchGloc's
    and is not used here."""

    model: SketchANetConfig = field(default_factory=SketchANetConfig)
    raster: RasterConfig = field(default_factory=RasterConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(run="runs/classifier"))
    log: LogConfig = field(default_factory=lambda: LogConfig(gallery=0))

    def __post_init__(self) -> None:
        for option, value in (
            ("data.disturb", self.data.disturb),
            ("data.validation_disturb", self.data.validation_disturb),
            ("train.checkpoint_decoder", self.train.checkpoint_decoder),
            ("train.compile", self.train.compile),
            ("log.gallery", self.log.gallery),
        ):
            if value:
                raise ConfigError(f"{option} is SketchGloc's and does nothing for a classifier; leave it out")
