"""The command line: `sgloc <command>`. One table says which function a command runs, with which options.

What a command needs is imported when it runs, so that `sgloc --help` and a mistyped option answer at once.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, get_type_hints

from sgloc import __version__
from sgloc.bench.options import OPTIONS
from sgloc.cli import bench, checkpoint, data, doctor, model, train
from sgloc.cli.shared import JsonOptions
from sgloc.errors import UsageError, nearest
from sgloc.orphan import die_with_parent
from sgloc.program import SPEECH, begin, ending, show

_HELP = ("-h", "--help")


@dataclass(frozen=True)
class Command:
    """What a command does.

    Attributes:
        function: does it. The types of its arguments are the dataclasses of its options.
        bare: the option that words without a name give; empty: there is none.
        text: what it does, in words; empty: the function's docstring.
        options: the dataclasses, where the function does not tell.
    """

    function: Callable[..., None]
    bare: str = ""
    text: str = ""
    options: tuple[type, ...] = ()

    def read(self, program: str, words: Sequence[str]) -> tuple[Any, ...]:
        """The options, as an instance of each dataclass.

        Raises:
            UsageError, ConfigError: if an option is wrong.
        """
        from sgloc.cli.options import Reader

        hints = {} if self.options else get_type_hints(self.function, localns=_Late(words))
        types = self.options or [hint for name, hint in hints.items() if name != "return"]
        return Reader(program, *types, description=self.text or self.function.__doc__ or "", bare=self.bare).read(words)


class _Late(dict[str, type]):
    """Dataclasses whose modules take their time, imported when they are asked for by name; for a command's words."""

    _MODULES: ClassVar = {
        "BuildOptions": "sgloc.data.build.plan",
        "Config": "sgloc.models.sketchgloc.config",
        "ClassifierConfig": "sgloc.models.sketch_a_net.config",
        "GenerateOptions": "sgloc.evaluate.options",
        "EvaluateOptions": "sgloc.evaluate.options",
        "SamplingOptions": "sgloc.evaluate.options",
        "ReportOptions": "sgloc.report.options",
        "DoctorOptions": "sgloc.doctor.options",
    }

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__()
        self._words = words

    def __missing__(self, name: str) -> type:
        if name == "RunConfig":
            # The model that the words name has options of its own.
            return train.config_type(self._words)
        found: type = getattr(importlib.import_module(self._MODULES[name]), name)
        return found


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "sample": Command(data.sample),
        "shard": Command(data.shard),
        "shards verify": Command(data.verify, bare="data"),
        "shards stats": Command(data.stats, bare="data"),
        "shards merge": Command(data.merge, bare="data"),
        "train": Command(train.train),
        "train-classifier": Command(train.train_classifier),
        "generate": Command(model.generate),
        "evaluate": Command(model.evaluate),
        "reorganize": Command(model.reorganize, bare="drawing"),
        "report": Command(model.report, bare="run"),
        "checkpoint list": Command(checkpoint.list_all, bare="run"),
        "checkpoint verify": Command(checkpoint.verify, bare="checkpoint"),
        "checkpoint show": Command(checkpoint.show_one, bare="checkpoint"),
        "checkpoint export": Command(checkpoint.export, bare="checkpoint"),
        "import-tf": Command(checkpoint.import_tf, bare="checkpoint"),
        "doctor": Command(doctor.doctor),
        **{
            f"bench {what}": Command(
                partial(bench.measure, what),
                text=kind.__doc__ or "",
                options=(kind, bench.MeasuredOptions, JsonOptions),
            )
            for what, kind in OPTIONS.items()
        },
    }
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `sgloc`; whatever goes wrong becomes one sentence and an exit code.

    Raises:
        SystemExit: with code 1 where it may pass, 2 for a mistake of the user, 3 for a fault of the program.
    """
    words = begin("sgloc", arguments)
    name = next((name for name in (" ".join(words[:2]), " ".join(words[:1])) if name in COMMANDS), "")
    program = f"sgloc {name}".rstrip()
    with ending(program):
        if "TORCHELASTIC_RUN_ID" in os.environ:
            die_with_parent()
        if name:
            command = COMMANDS[name]
            command.function(*command.read(program, words[len(name.split()) :]))
        elif words == ["--version"]:
            show(__version__)
        else:
            _show_commands(words)


def _show_commands(words: Sequence[str]) -> None:
    """Show the commands, or those of a group of them, such as `sgloc shards`.

    Raises:
        UsageError: if the words are neither.
    """
    groups = {name.partition(" ")[0] for name in COMMANDS if " " in name}
    group = [word for word in words[:1] if word in groups]
    if words[len(group) :] not in ([], *([word] for word in _HELP)):
        wrong = " ".join(words[: len(group) + 1])
        raise UsageError(f"there is no command {wrong!r}{nearest(wrong, list(COMMANDS))}; see `sgloc --help`")
    lines = [
        f"  {name:<17} {(command.text or command.function.__doc__ or '').splitlines()[0]}"
        for name, command in COMMANDS.items()
        if name.split()[: len(group)] == group
    ]
    usage = "usage: sgloc <command> [options]; `sgloc <command> --help` lists the options"
    show("\n".join([usage, "", *lines, "", SPEECH]))
