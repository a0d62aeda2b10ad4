"""The command line, `sgloc <command>`: one table maps each command to a function and its options.

Commands import their dependencies when they run, so that `sgloc --help` and a mistyped option answer at once.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sgloc import __version__
from sgloc.bench.options import OPTIONS
from sgloc.cli import bench, checkpoint, data, doctor, model, train
from sgloc.errors import ConfigError, UsageError, nearest
from sgloc.orphan import die_with_parent
from sgloc.program import SPEECH, begin, ending, show

_HELP = ("-h", "--help")


@dataclass(frozen=True)
class Command:
    """An entry of the command table.

    Attributes:
        function: runs the command. Its parameters are the options; a dataclass parameter contributes its fields.
        bare: option that takes positional arguments; empty if the command accepts none.
        chosen: dataclass for the parameter whose annotation is a quoted name, or a function that picks it from the
            arguments.
    """

    function: Callable[..., None]
    bare: str = ""
    chosen: type | Callable[[Sequence[str]], type] | None = None

    @property
    def text(self) -> str:
        """The command's description, for the help text."""
        return (self.chosen if isinstance(self.chosen, type) else self.function).__doc__ or ""

    def read(self, program: str, words: Sequence[str]) -> dict[str, Any]:
        """Parse command-line arguments into keyword arguments of the function.

        Raises:
            UsageError, ConfigError: if an option is invalid.
        """
        from sgloc.cli.options import Reader

        chosen = self.chosen if self.chosen is None or isinstance(self.chosen, type) else self.chosen(words)
        reader = Reader(program, self.function, chosen, description=self.text, bare=self.bare)
        try:
            return reader.read(words)
        except ConfigError as error:
            # torchrun passes the same arguments to all processes of a machine; only local rank 0 reports the error.
            error.told = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
            raise


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "sample": Command(data.sample),
        "shard": Command(data.shard, chosen=data.build_options),
        "shards verify": Command(data.verify, bare="data"),
        "shards stats": Command(data.stats, bare="data"),
        "shards merge": Command(data.merge, bare="data"),
        "train": Command(train.train, chosen=train.config_type),
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
        **{f"bench {what}": Command(bench.measure, chosen=kind) for what, kind in OPTIONS.items()},
    }
)


def command_name(words: Sequence[str]) -> str:
    """Return the name of the command at the start of the arguments, or an empty string if there is none."""
    return next((name for name in (" ".join(words[:2]), *words[:1]) if name in COMMANDS), "")


def unknown_command(name: str) -> UsageError:
    """Return the error for an unknown command."""
    return UsageError(f"unknown command {name!r}{nearest(name, list(COMMANDS))}; see `sgloc --help`")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `sgloc`; any error becomes one sentence and an exit code.

    Raises:
        SystemExit: with code 1 for a transient error, 2 for a user error, 3 for a bug (internal error).
    """
    words = begin("sgloc", arguments)
    name = command_name(words)
    program = f"sgloc {name}".rstrip()
    with ending(program):
        if "TORCHELASTIC_RUN_ID" in os.environ:
            die_with_parent()
        if name:
            command = COMMANDS[name]
            command.function(**command.read(program, words[len(name.split()) :]))
        elif words == ["--version"]:
            show(__version__)
        else:
            _show_commands(words)


def _show_commands(words: Sequence[str]) -> None:
    """List all commands, or those of one group, such as `sgloc shards`.

    Raises:
        UsageError: if the arguments name neither a command nor a group.
    """
    groups = {name.partition(" ")[0] for name in COMMANDS if " " in name}
    group = [word for word in words[:1] if word in groups]
    if words[len(group) :] not in ([], *([word] for word in _HELP)):
        raise unknown_command(" ".join(words[: len(group) + 1]))
    lines = [
        f"  {name:<17} {command.text.splitlines()[0]}"
        for name, command in COMMANDS.items()
        if name.split()[: len(group)] == group
    ]
    usage = "usage: sgloc <command> [options]; `sgloc <command> --help` lists the options"
    show("\n".join([usage, "", *lines, "", SPEECH]))
