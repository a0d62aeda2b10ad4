"""The option parser of every command and launcher.

Function parameters and dataclass fields become options; their docstrings are the help texts. An option of type `bool`
is a flag, one of type `list` takes several arguments, and one of type `tuple` takes one comma-separated argument. A
dataclass field that is itself a dataclass is a section of options, which a YAML file can set too.
"""

import dataclasses
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import jsonargparse

from sgloc.errors import DataError, UsageError, nearest
from sgloc.masking import is_masked
from sgloc.program import SPEECH, show
from sgloc.renamed import RENAMED

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

# Short names of options in sections: the names that the same options have in commands without sections.
SHORT: Mapping[str, str] = MappingProxyType(
    {
        "run": "train.run",
        "data": "data.path",
        "disturb": "data.disturb",
        "init_from": "train.init_from",
        "kind": "model.kind",
    }
)
# Every command accepts both names, because torchrun takes --run for an option of its own.
_ALIASES = {**SHORT, **{whole: short for short, whole in SHORT.items()}}
# Options that hold a path or URL, or a list of them, by the last part of their names.
_PLACES = frozenset(
    "cache checkpoint classifier config data deepspeed downloads drawing evaluated init_from mirror out path plot "  # noqa: SIM905
    "remote resume run source".split()
)
_EMPTY = inspect.Parameter.empty
_TRUTHS = ("true", "false", "yes", "no")
_NOTHING = ("null", "None")
# jsonargparse's messages for an invalid option, and for an invalid path.
_PARSER_KEY = re.compile(r'^Parser key "([^"]+)":\s+')
_WRONG_PATH = re.compile(r"^--([\w.]+): \w+ (does not exist|is not a file|is not readable): ('.*'|\".*\")$")
# Its name for an option file that it was passed as text, and its message for a file without options.
_NO_NAME = '"<unicode string>"'
_NO_OPTIONS = re.compile(r"^Unexpected config:\s*(.*)$", re.DOTALL)
# Its messages for an unknown option in a file: in a section, and at the top level.
_UNKNOWN = re.compile(r"Group '([\w.]+)' does not accept option '([\w.]+)'|Option '([\w.]+)' is not accepted")
# Bucket file systems treat a user and password as part of the bucket's name, and repeat it in error messages.
_BUCKET_OF_USER = re.compile(r"(?:^|::)(?:s3a?|gc?s)://[^/?#]*@")


class Reader:
    """Parser of one command's options.

    Args:
        program: the command as users type it, for messages.
        target: the function or dataclass whose parameters or fields are the options. A dataclass parameter contributes
            its fields; option names must be unique.
        chosen: dataclass for the parameter whose annotation is a quoted name.
        description: the command's description, for the help text.
        bare: option that takes positional arguments; empty if there is none.
        starts_command: whether the first positional argument is another command, followed by its options.
        needs_all: whether required options must be set.
    """

    def __init__(
        self,
        program: str,
        target: Callable[..., Any],
        chosen: type | None = None,
        *,
        description: str = "",
        bare: str = "",
        starts_command: bool = False,
        needs_all: bool = True,
    ) -> None:
        self.program, self._target, self._bare = program, target, bare
        self._starts_command, self._needs_all = starts_command, needs_all
        hints = {} if isinstance(target, type) else inspect.get_annotations(target)
        types: dict[str, Any] = {name: chosen if isinstance(hint, str) else hint for name, hint in hints.items()}
        self._inner: dict[str, Any] = {name: kind for name, kind in types.items() if dataclasses.is_dataclass(kind)}
        self._options = {name: option for part in (target, *self._inner.values()) for name, option in _leaves(part)}
        self._has_sections = any("." in name for name in self._options)
        of_files = {"config": "file", "print_config": "switch"} if self._has_sections else {}
        self._shapes = {name: option.shape for name, option in self._options.items()} | of_files
        self._description = inspect.cleandoc(description).partition("\nArgs:")[0].rstrip()

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """Parse arguments into keyword arguments of the function or dataclass.

        Raises:
            UsageError: if an option is unknown, missing, misspelled or has an invalid value.
            ConfigError: if the dataclass rejects the values.
            SystemExit: with code 0, after showing the help.
        """
        return self.read_until_word(words)[0]

    def read_until_word(self, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Like `read`, but stop at the first positional argument; also return that argument and the rest."""
        spelled, rest = self._spell(words)
        if rest and not self._starts_command:
            raise self._wrong(f"unrecognized argument: {rest[0]}")
        parser = self._parser()
        if "--help" in spelled:
            show(parser.format_help(), end="")
            sys.exit(0)
        given = {word.removeprefix("--").partition("=")[0].rstrip("+") for word in spelled}
        missing = [
            f"--{name}" for name, option in self._options.items() if option.default is _EMPTY and name not in given
        ]
        if missing:
            raise self._wrong(f"the following options are required: {', '.join(missing)}")
        values = self._parse(parser, spelled)
        for name, option in self._options.items():
            # In a file, jsonargparse accepts null for any value, and any value for a section.
            if option.default is not None and values.get(name) is None:
                raise self._wrong(f"{name} has no value, or its section is not a mapping; set it or leave it out")
        for name, option in self._options.items():
            values[name] = self._checked(name, option, values[name])
        found = parser.instantiate(values)
        made = {name: kind(**_arguments(kind, found)) for name, kind in self._inner.items()}
        return {**_arguments(self._target, found), **made}, rest

    def _spell(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """Normalise the arguments to --name=value with full option names; also return the rest, from the first argument
        that belongs to no option. Files come first, because options override them."""
        files, spelled, rest = list[str](), list[str](), list(words)
        while rest:
            if rest[0] in ("-h", "--help"):
                return ["--help"], []
            if rest[0] == "--":
                return [*files, *spelled], rest[1:]
            if not rest[0].startswith("--"):
                if not self._bare:
                    break
                name, values = self._bare, [rest.pop(0)]
            else:
                word, equals, value = rest.pop(0).removeprefix("--").partition("=")
                name = self._known(word.replace("-", "_"))
                values = [value] if equals else self._values(name, rest)
            shape = self._shapes[name]
            if shape == "tuple":
                values = [json.dumps([part.strip() for value in values for part in value.split(",") if part.strip()])]
            plus = "+" if shape == "list" else ""
            into = files if shape == "file" else spelled
            into += [f"--{name}{plus}={value}" for value in values] if values else [f"--{name}"]
        return [*files, *spelled], rest

    def _values(self, name: str, rest: list[str]) -> list[str]:
        """Pop an option's values from the arguments that follow it."""
        shape, values = self._shapes[name], list[str]()
        if shape == "switch":
            return []
        if shape == "flag":
            return [rest.pop(0) if rest and rest[0].lower() in _TRUTHS else "true"]
        takes_several = shape == "list" and not self._starts_command
        while rest and not rest[0].startswith("--") and (takes_several or not values):
            values.append(rest.pop(0))
        if not values:
            raise self._wrong(f"--{name} needs a value")
        return values

    def _known(self, name: str) -> str:
        """Return the full name of an option."""
        for known in (name, _ALIASES.get(name)):
            if known in self._shapes:
                return known
        inside = [known for known in self._options if known.startswith(f"{name}.")]
        if inside:
            raise self._wrong(f"--{name} is a section of options; set one of its options, such as --{inside[0]}")
        behind = "; put the command's own options after its name" if self._starts_command else ""
        raise self._wrong(f"unknown option --{name}{self._instead(name, '--')}{behind}")

    def _instead(self, name: str, dashes: str) -> str:
        """Return a hint at the option to use instead of an unknown one; empty if none is close."""
        known = [*self._shapes, *(alias for alias, one in _ALIASES.items() if one in self._options)]
        for new in RENAMED.get(name, "").split():
            if new in known:
                return f"; it is now {dashes}{new}"
        return nearest(name, known, dashes=dashes)

    def _parser(self) -> "ArgumentParser":
        jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
        word = f" {self._bare.upper()}" if self._bare else ""
        command = " COMMAND [its options]" if self._starts_command else ""
        parser = jsonargparse.ArgumentParser(
            prog=self.program,
            usage=f"{self.program}{word} [options]{command}",
            description=self._description,
            epilog=self._epilog(),
            exit_on_error=False,
            allow_abbrev=False,
        )
        if self._has_sections:
            parser.add_argument(
                "--config", action="config", help="YAML file of options; options on the command line override it"
            )
        for kind in self._inner.values():
            parser.add_class_arguments(kind)
        if isinstance(self._target, type):
            parser.add_class_arguments(self._target)
        else:
            parser.add_function_arguments(self._target, as_group=False, skip={*self._inner})
        return parser

    def _epilog(self) -> str:
        short = [f"--{short} is short for --{whole}" for short, whole in SHORT.items() if whole in self._options]
        bare = [f"{self._bare.upper()} sets --{self._bare}"] if self._bare else []
        return ". ".join([*bare, *short, "Boolean options need no value", " ".join(SPEECH.split())])

    def _parse(self, parser: "ArgumentParser", spelled: list[str]) -> "Namespace":
        try:
            return parser.parse_args(spelled)
        except UnicodeDecodeError as error:
            raise self._wrong(f"the option file is not text ({error}); pass a YAML file") from error
        except jsonargparse.ArgumentError as error:
            said = str(error).strip()
        # jsonargparse stops at the first file that it cannot read, but does not name it.
        files = " or ".join(word.partition("=")[2] for word in spelled if word.startswith("--config="))
        said = _WRONG_PATH.sub(r"--\1 is \3, which \2", _PARSER_KEY.sub(r"--\1: ", said))
        said = _NO_OPTIONS.sub(lambda _: f"{files} contains no options; pass a YAML file of options", said)
        unknown = _UNKNOWN.search(said)
        hint = self._instead(".".join(filter(None, unknown.groups())), "") if unknown else ""
        raise self._wrong(f"{said.replace(_NO_NAME, files)}{hint}")

    def _checked(self, name: str, option: "_Option", value: Any) -> Any:
        """Check a value and return it; in paths, ~ and environment variables are expanded as a shell does."""
        if isinstance(value, list):
            return [self._checked(name, option, each) for each in value]
        if not isinstance(value, str):
            return value
        if value in _NOTHING:
            advice = "set a value" if option.is_required or option.default is _EMPTY else "leave the option out"
            raise self._wrong(f"{name} is {value!r}, which means no value; {advice}")
        if name.rpartition(".")[2] not in _PLACES:
            return value
        if value:
            return self._place(name, value)
        if self._needs_all and (option.default != "" or option.is_required):
            raise self._wrong(f"{name} is not set; pass a folder or URL")
        return value

    def _place(self, name: str, given: str) -> str:
        """Return a path or URL with ~ and variables expanded; refuse one that no installed file system accepts."""
        from sgloc.storage import open_file_system

        place = given
        if ("$" in given or given.startswith("~")) and not Path(given).exists():
            place = os.path.expandvars(os.path.expanduser(given))  # noqa: PTH111, a URL must stay as it is
            unknown = re.search(r"\$\{?(\w+)", place)
            if place.startswith("~"):
                raise self._wrong(f"{name} is {given!r}, but that user does not exist; write out the path")
            if unknown is not None:
                raise self._wrong(
                    f"{name} is {given!r}, but the environment variable {unknown[1]} is not set; write out the path"
                )
        if _BUCKET_OF_USER.search(place):
            raise self._wrong(
                f"{name} is {place!r}, but a bucket URL cannot contain a user and password; set the store's variables, "
                "such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and pass the URL without the credentials"
            )
        if "\0" in place:
            raise self._wrong(f"{name} is {place!r}, but a path cannot contain a null character; pass another path")
        if is_masked(place):
            raise self._wrong(f"{name} is {place!r}, whose secret was masked when it was recorded; pass the full URL")
        try:
            open_file_system(place)
        except DataError as error:
            raise self._wrong(f"{name} is {place!r}, which is unusable ({error.__cause__}); pass another") from error
        return place

    def _wrong(self, message: str) -> UsageError:
        return UsageError(f"{message}; see `{self.program} --help`")


@dataclasses.dataclass(frozen=True)
class _Option:
    """A parameter or field that is not a section.

    Attributes:
        shape: how it is written on the command line: "flag", "list", "tuple" or "word". The reader itself adds options
            of shape "file" and "switch".
        default: value if the option is not set.
        is_required: whether the default is only a placeholder, so that the option must be set.
    """

    shape: str
    default: Any
    is_required: bool


def _shape(hint: Any) -> str:
    if hint is bool:
        return "flag"
    if get_origin(hint) is list:
        return "list"
    return "tuple" if {tuple, Sequence} & {get_origin(hint), *map(get_origin, get_args(hint))} else "word"


def _leaves(part: Callable[..., Any], prefix: str = "") -> Iterator[tuple[str, _Option]]:
    """Yield the options of a function, or of a dataclass and its nested dataclasses, with their dotted names."""
    fields = {one.name: one for one in dataclasses.fields(part)} if isinstance(part, type) else {}
    hints = get_type_hints(part) if fields else inspect.get_annotations(part)
    for name, parameter in inspect.signature(part).parameters.items():
        hint = hints[name]
        if fields and dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _leaves(hint, f"{prefix}{name}.")
        elif not dataclasses.is_dataclass(hint) and not isinstance(hint, str):
            is_required = bool(fields and fields[name].metadata.get("required"))
            yield f"{prefix}{name}", _Option(_shape(hint), parameter.default, is_required)


def _arguments(part: Callable[..., Any], found: "Namespace") -> dict[str, Any]:
    """Pick the arguments of a function or dataclass, options and sections, from the parsed values."""
    return {name: found[name] for name in {leaf.partition(".")[0] for leaf, _ in _leaves(part)}}
