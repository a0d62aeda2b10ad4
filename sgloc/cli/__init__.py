"""The command line: `sgloc <command>`. One function a command; all logic is elsewhere.

What a command needs is imported when it runs, so that `sgloc --help` and a mistyped option answer at once.
"""

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence

from sgloc import __version__
from sgloc.cli import bench, checkpoint, data, doctor, evaluate, generate, import_tf, reorganize, report, shards, train
from sgloc.cli.parsing import fail, nearest, tell
from sgloc.errors import SglocError

# The descriptor of what is printed.
_OUTPUT = 1
# Libraries of stores, which raise errors of their own.
_STORES = frozenset({"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "s3fs"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `sgloc`; a user's mistake becomes one sentence and exit code 2."""
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        # Whoever read the output, as head does, has seen enough; flushing it at the end is to find no pipe either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _OUTPUT)
        sys.exit(1)


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_overview(), flush=True)
        return
    if words[0] == "--version":
        print(__version__)
        return
    command = words[0]
    if command not in _COMMANDS:
        fail("sgloc", f"there is no command {command!r}{nearest(command, list(_COMMANDS))}; see `sgloc --help`")
    # A launcher starts training again: it may be the store that is to blame, not the user.
    of_stores = 1 if command in ("train", "train-classifier") else 2
    try:
        with _flushed():
            _COMMANDS[command](words[1:])
    except SglocError as error:
        if not error.told:
            tell(f"sgloc {command}", str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        # It may also be the pipe to another process that broke.
        if isinstance(error, BrokenPipeError) and not _has_reader():
            raise
        tell(f"sgloc {command}", f"{error}; check the path, its permissions and the space left")
        sys.exit(of_stores)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _STORES:
            raise
        what = f"{type(error).__name__}: {error}"
        tell(f"sgloc {command}", f"the store cannot be used ({what}); check the URL, the credentials and the network")
        sys.exit(of_stores)


@contextlib.contextmanager
def _flushed() -> Iterator[None]:
    """Have what is printed inside written at the end of it, where it can be told what goes wrong."""
    try:
        yield
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _has_reader() -> bool:
    """Whether somebody may still read what is printed."""
    output = select.poll()
    output.register(_OUTPUT, 0)
    return not any(event & select.POLLERR for _, event in output.poll(0))


def _overview() -> str:
    lines = [f"  {name:<16} {(function.__doc__ or '').splitlines()[0]}" for name, function in _COMMANDS.items()]
    return "\n".join(["usage: sgloc <command> [options]; `sgloc <command> --help` lists the options", "", *lines])


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
