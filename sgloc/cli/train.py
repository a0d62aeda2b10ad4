"""`sgloc train` and `sgloc train-classifier`."""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sgloc.cli.shared import chosen_device
from sgloc.models.sketch_a_net.config import ClassifierConfig
from sgloc.models.sketchgloc.config import Config
from sgloc.program import show

if TYPE_CHECKING:
    from sgloc.config import RunConfig


def read_config(program: str, path: str) -> Config:
    """Read the configuration of a run for a purpose other than training, such as a benchmark.

    Args:
        program: the command as users type it, for messages.
        path: YAML file with options of `sgloc train`; empty for the published sizes.

    Raises:
        UsageError, ConfigError: if an option is invalid.
    """
    from sgloc.cli.options import Reader

    # The target is `train`, not `Config`, because a training file may also set `resume`.
    reader = Reader(program, train, Config, needs_all=False)
    config: Config = reader.read([f"--config={path}"] if path else [])["config"]
    return config


def config_type(words: Sequence[str]) -> "type[RunConfig]":
    """Return the configuration type of the model that the arguments of `sgloc train`, or their option file, name."""
    given: dict[str, str] = {}
    for word, following in itertools.pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        given[name] = value if equals else following
    kind = given.get("--model.kind") or given.get("--kind") or _kind_of_file(given.get("--config", ""))
    if not kind:
        # The default model: skip importing its recipe, and torch with it.
        return Config
    from sgloc.models import recipe_of

    return recipe_of(kind).config_type


def _kind_of_file(path: str) -> str:
    """Return the model that an option file names, or an empty string; `Reader` reports any error in the file."""
    import yaml

    try:
        return str(yaml.safe_load(Path(os.path.expandvars(path)).expanduser().read_text())["model"]["kind"])
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        return ""


def train(config: "RunConfig", resume: str = "auto") -> None:
    """Train a model, or resume training: `sgloc train --config configs/quickstart.yaml`, or the same under torchrun.

    Options override those of the file. --print_config prints all options as YAML. The options are SketchGloc's unless
    --model.kind names another model: sketch_rnn, sketch_a_net, a model of an installed package, or package:Recipe.

    Args:
        config: Configuration of the run.
        resume: auto resumes from the run's newest checkpoint, if any; never starts a new run; otherwise the checkpoint
            to resume from.
    """
    from sgloc.dist import resolve_placement
    from sgloc.models import recipe_of, recorded_kind
    from sgloc.train import trainer

    chosen_device(config.train.device, resolve_placement(os.environ))
    trainer.train(config, resume, recipe_of(recorded_kind(dataclasses.asdict(config))))


def train_classifier(config: ClassifierConfig, resume: str = "auto") -> None:
    """Train Sketch-a-Net, the classifier behind Rec, or resume training; then test it.

    `sgloc train-classifier --data shards/mine --run runs/mine-classifier`, or the same under torchrun. Writes the best
    checkpoint's accuracy on the test drawings, and a confusion matrix as a picture, to the run folder.

    Args:
        config: Configuration of the run.
        resume: auto resumes from the run's newest checkpoint, if any; never starts a new run; otherwise the checkpoint
            to resume from.
    """
    train(config, resume)
    from sgloc.dist import resolve_placement
    from sgloc.models.sketch_a_net.testing import PICTURE, test_classifier
    from sgloc.train.start import has_finished

    placement = resolve_placement(os.environ)
    if placement.rank == 0 and has_finished(config.train.run):
        tested = test_classifier(config.train.run, config.data.path, chosen_device(config.train.device, placement))
        picture = f"{config.train.run.rstrip('/')}/{PICTURE}"
        show(f"test accuracy {tested.accuracy:.4f} on {tested.confusion.sum():,} drawings; {picture}")
