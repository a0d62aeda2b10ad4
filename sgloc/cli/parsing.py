"""What all commands do with their words: options, mistakes in them, and what is said of those."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import jsonargparse

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

# How the parser names an option that is wrong, and says what is wrong with a path.
_PARSER_KEY = re.compile(r'^Parser key "([^"]+)":\s+')
_WRONG_PATH = re.compile(r"^--([\w.]+): \w+ (does not exist|is not a file|is not readable): ('.*'|\".*\")$")
# How it names what it does not know: on the command line, in a file's section, at a file's top.
_UNKNOWN = re.compile(
    r"arguments: --([\w.-]+)|Group '([\w.]+)' does not accept option '([\w.]+)'|Option '([\w.]+)' is not accepted"
)


def tell(program: str, message: str) -> None:
    """One sentence on standard error."""
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)


def fail(program: str, message: str) -> NoReturn:
    """Refuse the command line, which all ranks were given alike: rank 0 tells it."""
    if os.environ.get("RANK", "0") == "0":
        tell(program, message)
    sys.exit(2)


def nearest(name: str, known: Sequence[str]) -> str:
    """The words that ask whether the nearest known name was meant, if any is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def new_parser(command: str, described: Callable[[list[str]], None] | str) -> "ArgumentParser":
    """A parser of a command's options, described by a sentence or by the first paragraph of a function's docstring."""
    description = described if isinstance(described, str) else (described.__doc__ or "").split("\n\n")[0]
    return jsonargparse.ArgumentParser(
        prog=f"sgloc {command}", description=description, exit_on_error=False, allow_abbrev=False
    )


# Options that several commands have.
_SHARED: dict[str, dict[str, Any]] = {
    "checkpoint": {
        "required": True,
        "help": "a checkpoint; a run's folder, of which the best is taken; or an exported model's folder",
    },
    "data": {"required": True, "help": "folder or URL of shards"},
    "out": {"required": True, "help": "folder or URL to write to"},
    "split": {"choices": ["train", "valid", "test"], "default": "test", "help": "which sketches"},
    "temperature": {"type": float, "default": 0.0, "help": "0: greedy; above: sample, 0.24 as published"},
    "max_points": {
        "type": int,
        "default": 0,
        "help": "most points of a drawing; 0: as many as the longest drawing of the training data has",
    },
    "batch_size": {"type": int, "default": 256, "help": "sketches computed together"},
    "device": {"choices": ["auto", "cpu", "cuda"], "default": "auto", "help": "where to compute"},
}


def add_shared(parser: "ArgumentParser", *names: str) -> None:
    """Add options that other commands have too."""
    for name in names:
        parser.add_argument(f"--{name}", **_SHARED[name])


def parse(parser: "ArgumentParser", words: list[str], *locations: str) -> "Namespace":
    """Parse, or fail with a sentence that names the nearest option to an unknown one.

    Args:
        parser: of the command.
        words: what was given to it.
        locations: the options that are a path or URL.
    """
    try:
        options = parser.parse_args([_with_underscores(word) for word in words])
    except UnicodeDecodeError as error:
        fail(parser.prog, f"the file of options is not text ({error}); give a YAML file")
    except jsonargparse.ArgumentError as error:
        known = [option.removeprefix("--") for action in parser._actions for option in action.option_strings]
        unknown = _UNKNOWN.search(str(error))
        hint = nearest(".".join(filter(None, unknown.groups())), known) if unknown else ""
        said = _WRONG_PATH.sub(r"--\1 is \3, which \2", _PARSER_KEY.sub(r"--\1: ", str(error).strip()))
        fail(parser.prog, f"{said}{hint}; see `{parser.prog} --help`")
    for name, default in parser.get_defaults().items():
        # In a file, the parser lets null stand for any value, and anything for a section.
        if default is not None and options.get(name) is None:
            fail(parser.prog, f"{name} has no value, or its section is not one; give it, or leave it out altogether")
    for name in locations:
        check_location(parser, name, options[name])
    return options


def _with_underscores(word: str) -> str:
    """An option as it is spelled here, also where it is given as --recognized-only."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.removeprefix("--").partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def check_location(parser: "ArgumentParser", name: str, location: str) -> None:
    """Refuse a path or URL that is empty, or of a file system that cannot be had here."""
    import fsspec.core

    if not location:
        fail(parser.prog, f"{name} is not set; give a folder or URL")
    try:
        fsspec.core.url_to_fs(location)
    except (ValueError, ImportError) as error:
        fail(parser.prog, f"{name} is {location!r}, which cannot be used ({error}); give another")
