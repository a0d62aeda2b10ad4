"""The command line: `sgloc <command>`. One function a command; all logic is elsewhere.

What a command needs is imported when it runs, so that `sgloc --help` and a mistyped option answer at once.
"""

from collections.abc import Callable, Sequence

from sgloc import __version__
from sgloc.cli import bench, checkpoint, data, doctor, evaluate, generate, import_tf, reorganize, report, shards, train
from sgloc.cli.parsing import fail, nearest, show
from sgloc.program import begin, ending


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `sgloc`; whatever goes wrong becomes one sentence and an exit code.

    Raises:
        SystemExit: with code 1 where it may pass, 2 for a mistake of the user, 3 for a fault of the program.
    """
    words = begin(arguments)
    command = words[0] if words else ""
    with ending(f"sgloc {command}" if command in _COMMANDS else "sgloc"):
        _run(words)


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        show(_overview())
        return
    if words[0] == "--version":
        show(__version__)
        return
    command = words[0]
    if command not in _COMMANDS:
        fail("sgloc", f"there is no command {command!r}{nearest(command, list(_COMMANDS))}; see `sgloc --help`")
    _COMMANDS[command](words[1:])


def _overview() -> str:
    lines = [f"  {name:<16} {(function.__doc__ or '').splitlines()[0]}" for name, function in _COMMANDS.items()]
    usage = "usage: sgloc <command> [options]; `sgloc <command> --help` lists the options"
    after = "Every command takes --debug: it shows the traceback of what goes wrong, as SGLOC_DEBUG=1 does."
    return "\n".join([usage, "", *lines, "", after])


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "sample": data.sample,
    "shard": data.shard,
    "shards": shards.shards,
    "train": train.train,
    "train-classifier": train.train_classifier,
    "generate": generate.generate,
    "evaluate": evaluate.evaluate,
    "reorganize": reorganize.reorganize,
    "report": report.report,
    "checkpoint": checkpoint.checkpoint,
    "import-tf": import_tf.import_tf,
    "doctor": doctor.doctor,
    "bench": bench.bench,
}
