"""Parsing and checking of the command that a launcher starts.

`python -m launch.command train [options]` checks the options and the shards, and prints the run folder.
"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from sgloc.cli import COMMANDS, command_name, unknown_command
from sgloc.config import RunConfig
from sgloc.errors import UsageError
from sgloc.program import run_program

# Ignore stop signals until the rank has installed its handlers, so that they do not kill it.
_PATIENT = ("/bin/sh", "-c", "trap '' USR1 USR2; exec \"$@\"", "rank")


@dataclass(frozen=True)
class Launched:
    """A command with validated options.

    Attributes:
        name: name of the command, such as "train".
        options: command-line arguments after the name.
        run: folder or URL of the run that the command trains; empty if it does not train.
        timeout: seconds within which the ranks of a run notice a lost rank.
    """

    name: str
    options: Sequence[str]
    run: str = ""
    timeout: float = 0.0

    def process(self) -> list[str]:
        """Return the command line of one process. If it trains, it ignores USR1 and USR2 until it has handlers."""
        return [*(_PATIENT if self.run else ()), sys.executable, "-m", "sgloc", *self.name.split(), *self.options]


def read_command(words: Sequence[str], *, check_data: bool) -> Launched:
    """Parse a command and its options before starting anything.

    Args:
        words: the command line, starting with the command's name.
        check_data: whether to check that a run's shards exist.

    Raises:
        UsageError: if the command is unknown or an option is invalid.
        DataError: if the shards do not exist.
    """
    if not words:
        raise UsageError("the command to start is missing; pass one, such as train, followed by its options")
    name = command_name(words)
    if not name:
        raise unknown_command(words[0])
    options = words[len(name.split()) :]
    arguments = COMMANDS[name].read(f"sgloc {name}", options)
    config = arguments.get("config")
    if not isinstance(config, RunConfig):
        return Launched(name, options)
    if arguments["resume"] == "never":
        raise UsageError("--resume never is not possible here: restarts resume from the run's checkpoints; omit it")
    if check_data:
        from sgloc.data.manifest import load_manifest

        load_manifest(config.data.path)
    return Launched(name, options, config.train.run, config.train.timeout)


def main(words: Sequence[str]) -> None:
    """Check options and shards, and print the run folder."""
    # Keep the help text out of standard output, where scripts read the folder.
    with contextlib.redirect_stdout(sys.stderr):
        launched = read_command(words, check_data=True)
    # Unmasked, because scripts use the URL.
    print(launched.run)


if __name__ == "__main__":
    run_program("launch.command", main)
