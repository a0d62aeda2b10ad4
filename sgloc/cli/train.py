"""`sgloc train` and `sgloc train-classifier`."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgloc.cli.model import chosen_device
from sgloc.program import show

if TYPE_CHECKING:
    from sgloc.models.sketch_a_net.config import ClassifierConfig
    from sgloc.models.sketchgloc.config import Config


@dataclass(frozen=True)
class StartOptions:
    """Where training begins."""

    resume: str = "auto"
    """auto: go on from the run's newest checkpoint, if any; never; or a checkpoint to start from."""


def read_config(program: str, path: str) -> "Config":
    """The configuration of a run that is not trained, such as one that is measured.

    Args:
        program: how people start what asks for it.
        path: YAML file of options of `sgloc train`; empty: the published sizes.

    Raises:
        UsageError, ConfigError: if an option is wrong.
    """
    from sgloc.cli.options import Reader
    from sgloc.models.sketchgloc.config import Config

    config: Config
    (config,) = Reader(program, Config, needs_all=False).read([f"--config={path}"] if path else [])
    return config


def train(config: "Config", start: StartOptions) -> None:
    """Train SketchGloc, or go on training: `sgloc train --config configs/quickstart.yaml`, or the same under torchrun.

    Options override the file's. --print_config prints them all as YAML.
    """
    from sgloc.dist import resolve_placement
    from sgloc.models.sketchgloc.recipe import SketchGlocRecipe
    from sgloc.train import trainer

    chosen_device(config.train.device, resolve_placement(os.environ))
    trainer.train(config, start.resume, SketchGlocRecipe())


def train_classifier(config: "ClassifierConfig", start: StartOptions) -> None:
    """Train Sketch-a-Net, the classifier behind Rec, on a data set's drawings, or go on training; then test it.

    `sgloc train-classifier --data shards/mine --run runs/mine-classifier`, or the same under torchrun. The best
    checkpoint's accuracy on the test drawings, and a picture of what it confuses, are written into the run's folder.
    """
    from sgloc.dist import resolve_placement
    from sgloc.models.sketch_a_net.recipe import SketchANetRecipe
    from sgloc.models.sketch_a_net.testing import PICTURE, test_classifier
    from sgloc.train import trainer
    from sgloc.train.start import has_finished

    placement = resolve_placement(os.environ)
    device = chosen_device(config.train.device, placement)
    trainer.train(config, start.resume, SketchANetRecipe())
    if placement.rank == 0 and has_finished(config.train.run):
        tested = test_classifier(config.train.run, config.data.path, device)
        picture = f"{config.train.run.rstrip('/')}/{PICTURE}"
        show(f"test accuracy {tested.accuracy:.4f} on {tested.confusion.sum():,} drawings; {picture}")
