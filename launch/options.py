"""The options of a launcher, and those of `sgloc train` among them.

`python -m launch.options [options of sgloc train]` checks these and prints the run's folder.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence

from sgloc.cli.parsing import fail, nearest
from sgloc.cli.train import read_config
from sgloc.data.manifest import load_manifest
from sgloc.models.sketchgloc.config import Config
from sgloc.program import run_program

# All others have a dot.
_OF_TRAIN = ("--config", "--resume", "--init_from", "--init-from", "--help", "--print_config", "--print-config")


def split(
    parser: argparse.ArgumentParser, words: Sequence[str], *, counts: Sequence[str] = ()
) -> tuple[argparse.Namespace, list[str]]:
    """Take a launcher's own options, spelled with hyphens or underscores, out of a command line.

    Args:
        parser: of the launcher.
        words: the command line; what follows a `--` is not for the launcher.
        counts: options, by their names in the result, that must be at least 1.

    Returns:
        The launcher's options, and the other words, which are options of `sgloc train`.
    """
    own = {option for action in parser._actions for option in action.option_strings}
    end = words.index("--") if "--" in words else len(words)
    spelled = []
    for word in words[:end]:
        name, equals, value = word.partition("=")
        hyphens = name.replace("_", "-")
        spelled.append(f"{hyphens}{equals}{value}" if hyphens in own else word)
    options, others = parser.parse_known_args(spelled)
    for name in (word.partition("=")[0] for word in others):
        hint = nearest(name, [option for option in own if option.startswith("--")])
        if name.startswith("--") and hint and name not in _OF_TRAIN and "." not in name:
            parser.error(f"there is no option {name}{hint}")
    for name in counts:
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}")
    return options, [*others, *words[end + 1 :]]


def check(words: Sequence[str], *, data: bool) -> Config:
    """Check the options of `sgloc train` before anything is started; a mistake is told, and ends the program.

    Args:
        words: the options.
        data: whether to see if there are shards where they say, too.

    Raises:
        SystemExit: with code 2, after a mistake.
        DataError: if there are no shards.
    """
    if not words:
        fail("sgloc train", "the options are missing; give at least --config FILE; see `sgloc train --help`")
    config, resume = read_config(list(words))
    if resume == "never":
        fail("sgloc train", "what is started again after a fault goes on from its own checkpoints; leave --resume out")
    if data:
        load_manifest(config.data.path)
    return config


def main(words: Sequence[str]) -> None:
    """Check options and shards, and print the folder of the run."""
    # Whoever reads the folder must not be given the help.
    with contextlib.redirect_stdout(sys.stderr):
        config = check(words, data=True)
    # With its secrets: it is used.
    print(config.train.run)


if __name__ == "__main__":
    run_program("launch.options", main)
