"""`sgloc train` and `sgloc train-classifier`."""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sgloc.cli.shared import chosen_device
from sgloc.program import show

if TYPE_CHECKING:
    from sgloc.config import RunConfig
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
    # A file of a training may say where that begins.
    config, _ = Reader(program, Config, StartOptions, needs_all=False).read([f"--config={path}"] if path else [])
    return config


def config_type(words: Sequence[str]) -> "type[RunConfig]":
    """The type of the configuration of the model that the words of `sgloc train` name, or a file of options among
    them."""
    kind = _named_kind(words)
    if not kind:
        # Without its recipe, and torch with it.
        from sgloc.models.sketchgloc.config import Config

        return Config
    from sgloc.models import recipe_of

    return recipe_of(kind).config_type


def _named_kind(words: Sequence[str]) -> str:
    """The model that words name; empty if none. What is wrong with the words is for the reader of options to say."""
    given: dict[str, str] = {}
    for word, following in itertools.pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        given[name] = value if equals else following
    named = given.get("--model.kind") or given.get("--kind")
    if named or "--config" not in given:
        return named or ""
    import yaml

    try:
        sections = yaml.safe_load(Path(os.path.expandvars(given["--config"])).expanduser().read_text())
        return str(sections["model"]["kind"])
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        return ""


def train(config: "RunConfig", start: StartOptions) -> None:
    """Train a model, or go on training: `sgloc train --config configs/quickstart.yaml`, or the same under torchrun.

    Options override the file's. --print_config prints them all as YAML. The options are SketchGloc's, unless
    --model.kind names another model: sketch_rnn, sketch_a_net, that of an installed package, or package:Recipe.
    """
    from sgloc.dist import resolve_placement
    from sgloc.models import recipe_of, recorded_kind
    from sgloc.train import trainer

    chosen_device(config.train.device, resolve_placement(os.environ))
    trainer.train(config, start.resume, recipe_of(recorded_kind(dataclasses.asdict(config))))


def train_classifier(config: "ClassifierConfig", start: StartOptions) -> None:
    """Train Sketch-a-Net, the classifier behind Rec, on a data set's drawings, or go on training; then test it.

    `sgloc train-classifier --data shards/mine --run runs/mine-classifier`, or the same under torchrun. The best
    checkpoint's accuracy on the test drawings, and a picture of what it confuses, are written into the run's folder.
    """
    train(config, start)
    from sgloc.dist import resolve_placement
    from sgloc.models.sketch_a_net.testing import PICTURE, test_classifier
    from sgloc.train.start import has_finished

    placement = resolve_placement(os.environ)
    if placement.rank == 0 and has_finished(config.train.run):
        tested = test_classifier(config.train.run, config.data.path, chosen_device(config.train.device, placement))
        picture = f"{config.train.run.rstrip('/')}/{PICTURE}"
        show(f"test accuracy {tested.accuracy:.4f} on {tested.confusion.sum():,} drawings; {picture}")
