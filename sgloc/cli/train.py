"""`sgloc train`, and the options that `sgloc bench` shares with it."""

import itertools
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import jsonargparse

from sgloc.cli.parsing import fail, new_parser, parse, show
from sgloc.errors import ConfigError
from sgloc.orphan import die_with_parent

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from sgloc.config import RunConfig
    from sgloc.models.sketchgloc.config import Config

# Short names of options, with underscores for all dashes.
_SHORT: Mapping[str, str] = MappingProxyType({"__init_from": "--train.init_from"})

AnyConfig = TypeVar("AnyConfig", bound="RunConfig")


def _spelled(words: list[str], short: Mapping[str, str]) -> list[str]:
    """Words in which the short names of options stand for the whole ones."""
    spelled = []
    for word in words:
        name, equals, value = word.partition("=")
        spelled.append(f"{short.get(name.replace('-', '_'), name)}{equals}{value}" if word.startswith("--") else word)
    return spelled


def _config_first(words: list[str]) -> list[str]:
    """Bring --config to the front: the parser lets what comes later win, and options are to override the file's."""
    first: list[str] = []
    rest: list[str] = []
    for previous, word in itertools.pairwise(["", *words]):
        is_config = word.startswith("--config=") or "--config" in (word, previous)
        (first if is_config else rest).append(word)
    return first + rest


def config_parser(
    command: str, described: Callable[[list[str]], None] | str, config_type: "type[RunConfig] | None" = None
) -> "ArgumentParser":
    """A parser of all options of `sgloc train`, or of another type of run, from a YAML file and the command line, for a
    command."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    from sgloc.models.sketchgloc.config import Config

    parser = new_parser(command, described)
    parser.add_argument("--config", action="config", help="YAML file of options")
    parser.add_class_arguments(config_type or Config)
    parser.add_argument(
        "--resume",
        default="auto",
        type=str,
        help="auto: go on from the run's newest checkpoint, if any; never; or a checkpoint to start from",
    )
    return parser


def instantiate(parser: "ArgumentParser", options: "Namespace") -> "Config":
    """The configuration that was parsed."""
    from sgloc.models.sketchgloc.config import Config

    return _instantiate(parser, options, Config)


def _instantiate(parser: "ArgumentParser", options: "Namespace", config_type: type[AnyConfig]) -> AnyConfig:
    try:
        values = parser.instantiate(options)
        return config_type(**{name: values[name] for name in config_type.__dataclass_fields__})
    except ConfigError as error:
        fail(parser.prog, str(error))


def read_config(words: list[str]) -> "tuple[Config, str]":
    """The configuration that the command line of `sgloc train` gives, and from which checkpoint to go on."""
    parser = config_parser("train", train)
    words = _config_first(_spelled(words, _SHORT))
    options = parse(parser, words, "data.path", "train.run", "resume")
    return instantiate(parser, options), options.resume


def train(words: list[str]) -> None:
    """Train SketchGloc, or go on training: `sgloc train --config configs/quickstart.yaml`, or the same under torchrun.

    Options override the file's. Every option is listed below with its default, unit and meaning; --print_config prints
    them all as YAML.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    config, resume = read_config(words)
    from sgloc.dist import resolve_placement, select_device
    from sgloc.memory import keep_freed_memory
    from sgloc.models.sketchgloc.recipe import SketchGlocRecipe
    from sgloc.train import trainer

    if select_device(config.train.device, resolve_placement(os.environ)).type == "cpu":
        keep_freed_memory()
    trainer.train(config, resume, SketchGlocRecipe())


def train_classifier(words: list[str]) -> None:
    """Train Sketch-a-Net, the classifier behind Rec, on a data set's drawings, or go on training; then test it.

    `sgloc train-classifier --data shards/mine --train.run runs/mine-classifier`, or the same under torchrun. The
    best checkpoint's accuracy on the test drawings, and a picture of what it confuses, are written into the run's
    folder.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    from sgloc.models.sketch_a_net.config import ClassifierConfig

    parser = config_parser("train-classifier", train_classifier, ClassifierConfig)
    words = _config_first(_spelled(words, {**_SHORT, "__data": "--data.path"}))
    options = parse(parser, words, "data.path", "train.run", "resume")
    config = _instantiate(parser, options, ClassifierConfig)
    from sgloc.dist import resolve_placement, select_device
    from sgloc.memory import keep_freed_memory
    from sgloc.models.sketch_a_net.recipe import SketchANetRecipe
    from sgloc.models.sketch_a_net.testing import PICTURE, test_classifier
    from sgloc.train import trainer
    from sgloc.train.start import has_finished

    placement = resolve_placement(os.environ)
    device = select_device(config.train.device, placement)
    if device.type == "cpu":
        keep_freed_memory()
    trainer.train(config, options.resume, SketchANetRecipe())
    if placement.rank == 0 and has_finished(config.train.run):
        tested = test_classifier(config.train.run, config.data.path, device)
        picture = f"{config.train.run.rstrip('/')}/{PICTURE}"
        show(f"test accuracy {tested.accuracy:.4f} on {tested.confusion.sum():,} drawings; {picture}")
