"""The command that a launcher starts, and what the launcher has to know of it.

`python -m launch.command train [options]` checks the options and the shards, and prints the run's folder.
"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from sgloc.cli import COMMANDS, command_name, unknown_command
from sgloc.config import RunConfig
from sgloc.errors import UsageError
from sgloc.program import run_program

# A rank that does not listen yet is not to be killed by what asks it to stop.
_PATIENT = ("/bin/sh", "-c", "trap '' USR1 USR2; exec \"$@\"", "rank")


@dataclass(frozen=True)
class Launched:
    """A command whose options are right.

    Attributes:
        name: of the command, such as "train".
        options: its words.
        run: folder or URL of the run that it trains; empty: it trains none.
        timeout: seconds after which the ranks of a run have noticed that another one is gone.
    """

    name: str
    options: Sequence[str]
    run: str = ""
    timeout: float = 0.0

    def process(self) -> list[str]:
        """The command line of one process. While it trains, and does not listen yet, it ignores USR1 and USR2."""
        return [*(_PATIENT if self.run else ()), sys.executable, "-m", "sgloc", *self.name.split(), *self.options]


def read_command(words: Sequence[str], *, check_data: bool) -> Launched:
    """Read a command and its options before anything is started.

    Args:
        words: the command line, from the command's name.
        check_data: whether to see if there are shards where a run expects them.

    Raises:
        UsageError: if there is no such command, or an option is wrong.
        DataError: if there are no shards.
    """
    if not words:
        raise UsageError("the command to start is missing; give one, such as train, and its options after it")
    name = command_name(words)
    if not name:
        raise unknown_command(words[0])
    options = words[len(name.split()) :]
    arguments = COMMANDS[name].read(f"sgloc {name}", options)
    config = arguments.get("config")
    if not isinstance(config, RunConfig):
        return Launched(name, options)
    if arguments["resume"] == "never":
        raise UsageError("what is started again after a fault goes on from its own checkpoints; leave --resume out")
    if check_data:
        from sgloc.data.manifest import load_manifest

        load_manifest(config.data.path)
    return Launched(name, options, config.train.run, config.train.timeout)


def main(words: Sequence[str]) -> None:
    """Check options and shards, and print the folder of the run."""
    # Whoever reads the folder must not be given the help.
    with contextlib.redirect_stdout(sys.stderr):
        launched = read_command(words, check_data=True)
    # With its secrets: it is used.
    print(launched.run)


if __name__ == "__main__":
    run_program("launch.command", main)
