"""One reader of options for every command and launcher.

The parameters of a function are options, and so are the fields of a dataclass; their docstrings are the help. An option
of type `bool` is a flag; one of type `list` takes several words; one of type `tuple` takes one word with commas. Fields
of a dataclass that are dataclasses themselves are sections of options, which a YAML file may give too.
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

# Of options in sections, by the names that they have in commands without sections.
SHORT: Mapping[str, str] = MappingProxyType(
    {
        "run": "train.run",
        "data": "data.path",
        "disturb": "data.disturb",
        "init_from": "train.init_from",
        "kind": "model.kind",
    }
)
# Either name is right in every command: torchrun takes --run for an option of its own.
_ALIASES = {**SHORT, **{whole: short for short, whole in SHORT.items()}}
# The last part of the name of every option that holds a path or URL, or several.
_PLACES = frozenset(
    "cache checkpoint classifier config data deepspeed downloads drawing evaluated init_from mirror out path plot "  # noqa: SIM905
    "remote resume run source".split()
)
_EMPTY = inspect.Parameter.empty
_TRUTHS = ("true", "false", "yes", "no")
_NOTHING = ("null", "None")
# How the parser names an option that is wrong, and says what is wrong with a path.
_PARSER_KEY = re.compile(r'^Parser key "([^"]+)":\s+')
_WRONG_PATH = re.compile(r"^--([\w.]+): \w+ (does not exist|is not a file|is not readable): ('.*'|\".*\")$")
# How it names a file of options of which it has but the text, and one that holds none.
_NO_NAME = '"<unicode string>"'
_NO_OPTIONS = re.compile(r"^Unexpected config:\s*(.*)$", re.DOTALL)
# How it names an option of a file that it does not know: in a section, at the top.
_UNKNOWN = re.compile(r"Group '([\w.]+)' does not accept option '([\w.]+)'|Option '([\w.]+)' is not accepted")
# The file systems of buckets take a user and password for a part of the bucket's name, and repeat it in messages.
_BUCKET_OF_USER = re.compile(r"(?:^|::)(?:s3a?|gc?s)://[^/?#]*@")


class Reader:
    """Reads the options of one command.

    Args:
        program: how people start the command.
        target: the function or dataclass whose parameters or fields are the options. A function's parameter that is a
            dataclass stands for the fields of that; no two options may share a name.
        chosen: the dataclass for a parameter whose annotation is a name in quotes.
        description: what the command does.
        bare: the option that words without a name give; empty: there is none.
        starts_command: whether the first such word is another command, whose options follow.
        needs_all: whether options must be given that have no value but a given one.
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
        """The arguments of the function or dataclass.

        Raises:
            UsageError: if an option is unknown, missing, misspelled or has no such value.
            ConfigError: if the dataclass refuses the values.
            SystemExit: with code 0, after the help was shown.
        """
        return self.read_until_word(words)[0]

    def read_until_word(self, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """The same for the options in front of the first word without a name; gives that word and what follows, too."""
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
            # In a file, the parser lets null stand for any value, and anything for a section.
            if option.default is not None and values.get(name) is None:
                raise self._wrong(
                    f"{name} has no value, or its section is not one; give it, or leave it out altogether"
                )
        for name, option in self._options.items():
            values[name] = self._checked(name, option, values[name])
        found = parser.instantiate(values)
        made = {name: kind(**_arguments(kind, found)) for name, kind in self._inner.items()}
        return {**_arguments(self._target, found), **made}, rest

    def _spell(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """The same words, each option as --name=value with its whole name, files first, for options override them; and
        the words from the first that belongs to no option."""
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
        """Take the words that belong to an option from those after it."""
        shape, values = self._shapes[name], list[str]()
        if shape == "switch":
            return []
        if shape == "flag":
            return [rest.pop(0) if rest and rest[0].lower() in _TRUTHS else "true"]
        takes_several = shape == "list" and not self._starts_command
        while rest and not rest[0].startswith("--") and (takes_several or not values):
            values.append(rest.pop(0))
        if not values:
            raise self._wrong(f"--{name} has no value; give one")
        return values

    def _known(self, name: str) -> str:
        """The whole name of an option."""
        for known in (name, _ALIASES.get(name)):
            if known in self._shapes:
                return known
        inside = [known for known in self._options if known.startswith(f"{name}.")]
        if inside:
            raise self._wrong(f"--{name} is a section of options; give one of them, such as --{inside[0]}")
        behind = "; those of the command stand after its name" if self._starts_command else ""
        raise self._wrong(f"there is no option --{name}{self._instead(name, '--')}{behind}")

    def _instead(self, name: str, dashes: str) -> str:
        """What to give in place of an option that there is not."""
        known = [*self._shapes, *(alias for alias, one in _ALIASES.items() if one in self._options)]
        for new in RENAMED.get(name, "").split():
            if new in known:
                return f"; it is {dashes}{new} now"
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
                "--config", action="config", help="YAML file of options, which those given here override"
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
        bare = [f"{self._bare.upper()} is the value of --{self._bare}"] if self._bare else []
        return ". ".join([*bare, *short, "An option of type bool needs no value", " ".join(SPEECH.split())])

    def _parse(self, parser: "ArgumentParser", spelled: list[str]) -> "Namespace":
        try:
            return parser.parse_args(spelled)
        except UnicodeDecodeError as error:
            raise self._wrong(f"the file of options is not text ({error}); give a YAML file") from error
        except jsonargparse.ArgumentError as error:
            said = str(error).strip()
        # The parser stops at the first file that it cannot read, but does not say which one it is.
        files = " or ".join(word.partition("=")[2] for word in spelled if word.startswith("--config="))
        said = _WRONG_PATH.sub(r"--\1 is \3, which \2", _PARSER_KEY.sub(r"--\1: ", said))
        said = _NO_OPTIONS.sub(lambda _: f"{files} holds no options; give a YAML file of them", said)
        unknown = _UNKNOWN.search(said)
        hint = self._instead(".".join(filter(None, unknown.groups())), "") if unknown else ""
        raise self._wrong(f"{said.replace(_NO_NAME, files)}{hint}")

    def _checked(self, name: str, option: "_Option", value: Any) -> Any:
        """A value as it is used: ~ and the environment's variables are expanded in paths, as a shell does."""
        if isinstance(value, list):
            return [self._checked(name, option, each) for each in value]
        if not isinstance(value, str):
            return value
        if value in _NOTHING:
            advice = "give a value" if option.is_required or option.default is _EMPTY else "leave the option out"
            raise self._wrong(f"{name} is {value!r}, which stands for nothing; {advice}")
        if name.rpartition(".")[2] not in _PLACES:
            return value
        if value:
            return self._place(name, value)
        if self._needs_all and (option.default != "" or option.is_required):
            raise self._wrong(f"{name} is not set; give a folder or URL")
        return value

    def _place(self, name: str, given: str) -> str:
        """A path or URL as it is used; one that no file system here can use is refused."""
        from sgloc.storage import open_file_system

        place = given
        if ("$" in given or given.startswith("~")) and not Path(given).exists():
            place = os.path.expandvars(os.path.expanduser(given))  # noqa: PTH111, a URL must stay as it is
            unknown = re.search(r"\$\{?(\w+)", place)
            if place.startswith("~"):
                raise self._wrong(f"{name} is {given!r}, but there is no such user; give the path itself")
            if unknown is not None:
                raise self._wrong(
                    f"{name} is {given!r}, but the environment has no variable {unknown[1]}; give the path itself"
                )
        if _BUCKET_OF_USER.search(place):
            raise self._wrong(
                f"{name} is {place!r}, but the URL of a bucket holds no user and password; set the variables of the "
                "store, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and give the URL without them"
            )
        if "\0" in place:
            raise self._wrong(f"{name} is {place!r}, but no path has such a character; give another")
        if is_masked(place):
            raise self._wrong(f"{name} is {place!r}, of which the secret was not kept; give the whole URL again")
        try:
            open_file_system(place)
        except DataError as error:
            raise self._wrong(f"{name} is {place!r}, which cannot be used ({error.__cause__}); give another") from error
        return place

    def _wrong(self, message: str) -> UsageError:
        return UsageError(f"{message}; see `{self.program} --help`")


@dataclasses.dataclass(frozen=True)
class _Option:
    """A parameter or field that is no section.

    Attributes:
        shape: how words give it: "flag", "list", "tuple", "word"; beside these there are "file" and "switch".
        default: its value unless one is given.
        is_required: whether the default is none that makes sense.
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
    """The options of a function, or of a dataclass and those within it, by dotted name."""
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
    """What a function or dataclass is called with, of all that was found: options, and sections of them."""
    return {name: found[name] for name in {leaf.partition(".")[0] for leaf, _ in _leaves(part)}}
