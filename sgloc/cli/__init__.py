"""The command line: `sgloc <command>`. One function a command; all logic is elsewhere.

What a command needs is imported when it runs, so that `sgloc --help` and a mistyped option answer at once.
"""

import sys
from collections.abc import Callable, Sequence

from sgloc import __version__
from sgloc.cli import bench, checkpoint, data, doctor, generate, shards, train
from sgloc.cli.parsing import fail, nearest, tell
from sgloc.errors import SglocError

# Libraries of stores, which raise errors of their own.
_STORES = frozenset({"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "s3fs"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `sgloc`; a user's mistake becomes one sentence and exit code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return
    if words[0] == "--version":
        print(__version__)
        return
    command = words[0]
    if command not in _COMMANDS:
        fail("sgloc", f"there is no command {command!r}{nearest(command, list(_COMMANDS))}; see `sgloc --help`")
    try:
        _COMMANDS[command](words[1:])
    except SglocError as error:
        if not error.told:
            tell(f"sgloc {command}", str(error))
        sys.exit(2)
    except OSError as error:
        tell(f"sgloc {command}", f"{error}; check the path, its permissions and the space left")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _STORES:
            raise
        what = f"{type(error).__name__}: {error}"
        tell(f"sgloc {command}", f"the store cannot be used ({what}); check the URL, the credentials and the network")
        sys.exit(2)


def _overview() -> str:
    lines = [f"  {name:<10} {(function.__doc__ or '').splitlines()[0]}" for name, function in _COMMANDS.items()]
    return "\n".join(["usage: sgloc <command> [options]; `sgloc <command> --help` lists the options", "", *lines])


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "sample": data.sample,
    "shard": data.shard,
    "shards": shards.shards,
    "train": train.train,
    "generate": generate.generate,
    "checkpoint": checkpoint.checkpoint,
    "doctor": doctor.doctor,
    "bench": bench.bench,
}
