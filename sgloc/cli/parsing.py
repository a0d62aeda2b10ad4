"""What all commands do with their words: options, mistakes in them, and what is said of those."""

import contextlib
import difflib
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import jsonargparse

from sgloc.faults import MISTAKE
from sgloc.masking import is_masked, mask
from sgloc.program import tell

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

# How the parser names an option that is wrong, and says what is wrong with a path.
_PARSER_KEY = re.compile(r'^Parser key "([^"]+)":\s+')
_WRONG_PATH = re.compile(r"^--([\w.]+): \w+ (does not exist|is not a file|is not readable): ('.*'|\".*\")$")
_REQUIRED = re.compile(r"(?<=arguments are required: ).+$")
# How it names a file of options of which it has but the text, and one that holds none.
_NO_NAME = '"<unicode string>"'
_NO_OPTIONS = re.compile(r"^Unexpected config:\s*(.*)$", re.DOTALL)
# How it names what it does not know: on the command line, in a file's section, at a file's top.
_UNKNOWN = re.compile(
    r"arguments: --([\w.-]+)|Group '([\w.]+)' does not accept option '([\w.]+)'|Option '([\w.]+)' is not accepted"
)


def show(text: str, end: str = "\n") -> None:
    """Print to standard output what a command was asked for, without the secrets of its URLs."""
    print(mask(text), end=end, flush=True)


def say(sentence: str) -> None:
    """Tell on standard error what a command does, without the secrets of its URLs."""
    with contextlib.suppress(OSError, ValueError):
        print(mask(sentence), file=sys.stderr, flush=True)


def fail(program: str, message: str) -> NoReturn:
    """Refuse the command line. torchrun gives all ranks of a machine the same one, and the first of them tells."""
    is_told = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
    if not is_told:
        tell(program, message)
    sys.exit(MISTAKE)


def nearest(name: str, known: Sequence[str], dashes: str = "") -> str:
    """The words that ask whether the nearest known name was meant, if any is near.

    Args:
        name: what was given.
        known: all names.
        dashes: what stands before a name on the command line; such a name needs no quotes.
    """
    near = difflib.get_close_matches(name, known, n=1)
    if not near:
        return ""
    return f"; did you mean {dashes}{near[0]}?" if dashes else f"; did you mean {near[0]!r}?"


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
    _refuse_sections(parser, words)
    try:
        options = parser.parse_args([_with_underscores(word) for word in words])
    except UnicodeDecodeError as error:
        fail(parser.prog, f"the file of options is not text ({error}); give a YAML file")
    except jsonargparse.ArgumentError as error:
        known = [option.removeprefix("--") for action in parser._actions for option in action.option_strings]
        unknown = _UNKNOWN.search(str(error))
        # In a file, names have no dashes.
        dashes = "--" if unknown and unknown[1] else ""
        hint = nearest(".".join(filter(None, unknown.groups())), known, dashes) if unknown else ""
        fail(parser.prog, f"{_in_plain_words(parser, str(error).strip(), words)}{hint}; see `{parser.prog} --help`")
    for name, default in parser.get_defaults().items():
        # In a file, the parser lets null stand for any value, and anything for a section.
        if default is not None and options.get(name) is None:
            fail(parser.prog, f"{name} has no value, or its section is not one; give it, or leave it out altogether")
    _complete_words(parser, options)
    for name in locations:
        check_location(parser, name, options[name])
    return options


def _in_plain_words(parser: "ArgumentParser", said: str, words: list[str]) -> str:
    """What the parser says is wrong, with options and files named as a person gives them."""
    files = [
        after if word == "--config" else word.removeprefix("--config=")
        for word, after in itertools.pairwise([*words, ""])
        if word == "--config" or word.startswith("--config=")
    ]
    # The parser stops at the first file that it cannot read, but tells of none which it is.
    named = " or ".join(files)
    said = _WRONG_PATH.sub(r"--\1 is \3, which \2", _PARSER_KEY.sub(r"--\1: ", said))
    said = _NO_OPTIONS.sub(lambda _: f"{named} holds no options; give a YAML file of them", said)
    options = {action.dest: action.option_strings for action in parser._actions}
    said = _REQUIRED.sub(
        lambda match: ", ".join((options.get(name) or [name])[0] for name in match[0].split(", ")), said
    )
    return said.replace(_NO_NAME, named)


# The last part of the name of every option that holds a path or URL, or several.
_PATHS = frozenset(
    {
        "cache",
        "checkpoint",
        "classifier",
        "config",
        "data",
        "deepspeed",
        "downloads",
        "drawing",
        "evaluated",
        "folder",
        "folders",
        "init_from",
        "mirror",
        "out",
        "path",
        "plot",
        "remote",
        "resume",
        "run",
        "source",
    }
)
_NOTHING = ("null", "None")
# The file systems of buckets take a user and password for a part of the bucket's name, and repeat it in messages.
_BUCKET_OF_USER = re.compile(r"(?:^|::)(?:s3a?|gc?s)://[^/?#]*@")


def _complete_words(parser: "ArgumentParser", options: "Namespace") -> None:
    """Expand ~ and the environment's variables in paths, as a shell does outside a file; refuse `null` for a word."""
    for action in parser._actions:
        value = options.get(action.dest)
        words = value if isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str) for word in words) or action.choices:
            continue
        for word in words:
            if word in _NOTHING:
                fail(
                    parser.prog,
                    f"{action.dest} is {word!r}, which stands for nothing; leave the option out, or give an empty word",
                )
        if action.dest.rpartition(".")[2] in _PATHS:
            expanded = [_expand(parser, action.dest, word) for word in words]
            for word in expanded:
                _refuse_user_of_bucket(parser, action.dest, word)
            options[action.dest] = expanded if isinstance(value, list) else expanded[0]


def _expand(parser: "ArgumentParser", name: str, location: str) -> str:
    if not ("$" in location or location.startswith("~")) or Path(location).exists():
        return location
    try:
        # Only a local path may begin so; a URL must stay as it is.
        home = str(Path(location).expanduser()) if location.startswith("~") else location
    except RuntimeError:
        fail(parser.prog, f"{name} is {location!r}, but there is no such user; give the path itself")
    expanded = os.path.expandvars(home)
    unknown = re.search(r"\$(\w+|\{[^}]*\})", expanded)
    if unknown is not None:
        variable = unknown[1].strip("{}")
        fail(
            parser.prog, f"{name} is {location!r}, but the environment has no variable {variable}; give the path itself"
        )
    return expanded


def _refuse_user_of_bucket(parser: "ArgumentParser", name: str, location: str) -> None:
    if _BUCKET_OF_USER.search(location):
        fail(
            parser.prog,
            f"{name} is {location!r}, but the URL of a bucket holds no user and password; set the variables of the "
            "store, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and give the URL without them",
        )


def _refuse_sections(parser: "ArgumentParser", words: list[str]) -> None:
    """Refuse --data where --data.path is meant: the parser would take the value for a file of options."""
    known = [option.removeprefix("--") for action in parser._actions for option in action.option_strings]
    for word in words:
        name = word.removeprefix("--").partition("=")[0].replace("-", "_")
        inside = [option for option in known if option.startswith(f"{name}.")]
        if word.startswith("--") and inside:
            meant = f"{name}.path" if f"{name}.path" in inside else inside[0]
            fail(parser.prog, f"--{name} is a section of options; give one of them, such as --{meant}")


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
    if "\0" in location:
        fail(parser.prog, f"{name} is {location!r}, but no path has such a character; give another")
    if is_masked(location):
        fail(parser.prog, f"{name} is {location!r}, of which the secret was not kept; give the whole URL again")
    try:
        fsspec.core.url_to_fs(location)
    except (ValueError, ImportError) as error:
        fail(parser.prog, f"{name} is {location!r}, which cannot be used ({error}); give another")
