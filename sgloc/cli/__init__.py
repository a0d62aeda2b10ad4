"""The command line: `sgloc <command>`. One table says which function a command runs, with which options.

What a command needs is imported when it runs, so that `sgloc --help` and a mistyped option answer at once.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from sgloc import __version__
from sgloc.bench.options import OPTIONS
from sgloc.cli import bench, checkpoint, data, doctor, model, train
from sgloc.errors import UsageError, nearest
from sgloc.orphan import die_with_parent
from sgloc.program import SPEECH, begin, ending, show

_HELP = ("-h", "--help")


@dataclass(frozen=True)
class Command:
    """What a command does.

    Attributes:
        function: does it; is given an instance of each of the dataclasses.
        options: the dataclasses of its options, as "module:name" where their module takes its time.
        bare: the option that words without a name give; empty: there is none.
        text: what it does, in words; empty: the function's docstring.
    """

    function: Callable[..., None]
    options: tuple[type | str, ...]
    bare: str = ""
    text: str = ""

    def read(self, program: str, words: Sequence[str]) -> tuple[Any, ...]:
        """The options, as an instance of each dataclass.

        Raises:
            UsageError, ConfigError: if an option is wrong.
        """
        from sgloc.cli.options import Reader

        types = (_imported(each) if isinstance(each, str) else each for each in self.options)
        return Reader(program, *types, description=self.text or self.function.__doc__ or "", bare=self.bare).read(words)


def _imported(name: str) -> type:
    module, _, attribute = name.partition(":")
    found: type = getattr(importlib.import_module(module), attribute)
    return found


_USE = (model.ModelOptions, model.ShardsOptions)
COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "sample": Command(data.sample, (data.SampleOptions,)),
        "shard": Command(data.shard, (data.ShardOptions, "sgloc.data.build.plan:BuildOptions")),
        "shards verify": Command(data.verify, (data.VerifyOptions,), bare="data"),
        "shards stats": Command(data.stats, (data.StatsOptions,), bare="data"),
        "shards merge": Command(data.merge, (data.MergeOptions,), bare="data"),
        "train": Command(train.train, ("sgloc.models.sketchgloc.config:Config", train.StartOptions)),
        "train-classifier": Command(
            train.train_classifier, ("sgloc.models.sketch_a_net.config:ClassifierConfig", train.StartOptions)
        ),
        "generate": Command(model.generate, (*_USE, "sgloc.evaluate.options:GenerateOptions", model.DeviceOptions)),
        "evaluate": Command(
            model.evaluate,
            (*_USE, model.JudgeOptions, "sgloc.evaluate.options:EvaluateOptions", model.DeviceOptions),
        ),
        "reorganize": Command(
            model.reorganize,
            (model.DrawingOptions, model.ModelOptions, "sgloc.evaluate.options:SamplingOptions", model.DeviceOptions),
            bare="drawing",
        ),
        "report": Command(model.report, ("sgloc.report.options:ReportOptions", model.DeviceOptions), bare="run"),
        "checkpoint list": Command(checkpoint.list_all, (checkpoint.ListOptions,), bare="run"),
        "checkpoint verify": Command(checkpoint.verify, (checkpoint.VerifyOptions,), bare="checkpoint"),
        "checkpoint show": Command(checkpoint.show_one, (checkpoint.ShowOptions,), bare="checkpoint"),
        "checkpoint export": Command(checkpoint.export, (checkpoint.ExportOptions,), bare="checkpoint"),
        "import-tf": Command(checkpoint.import_tf, (checkpoint.ImportOptions,), bare="checkpoint"),
        "doctor": Command(doctor.doctor, ("sgloc.doctor.run:DoctorOptions", doctor.OutputOptions)),
        **{
            f"bench {what}": Command(partial(bench.measure, what), (kind, bench.TableOptions), text=kind.__doc__ or "")
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
