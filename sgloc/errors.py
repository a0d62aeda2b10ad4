"""The exceptions of this package: user errors, damaged or missing files, and unreachable stores.

Every message is one sentence that says what was wrong, where, and what to do; the command line prints it.
"""

import difflib
from collections.abc import Iterable
from typing import Any

from sgloc.masking import mask


class SglocError(ValueError):
    """Base class of all errors that are reported without a traceback.

    Secrets in URLs are masked in the message.

    Attributes:
        told: whether rank 0 reports the error, so that this process need not.
        exit_code: exit code of the command that raises it. 2: a user error, which would recur. 1: the same command may
            succeed later, so launchers restart training. 3: a bug (internal error).
        trace: traceback in the process where the error was raised, if that is another process.
    """

    told = False
    exit_code = 2
    trace = ""

    def __str__(self) -> str:
        return mask(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling loses the cause, which may decide the exit code, and the traceback; store both.
        from sgloc.faults import exit_code_of, trace_of

        kept = {**self.__dict__, "exit_code": exit_code_of(self), "trace": trace_of(self)}
        # Subclasses may have other constructor arguments than `args`, so do not call the constructor.
        return type(self).__new__, (type(self), *self.args), kept


class ConfigError(SglocError):
    """An invalid option, or an invalid combination of options."""


class UsageError(ConfigError):
    """An argument on the command line, or an option in a file, that the command does not accept."""


class OccupiedError(ConfigError):
    """A run folder in use by another run."""

    exit_code = 1


class DataError(SglocError):
    """A file or shard that is missing, unreadable or invalid."""


class CheckpointError(SglocError):
    """A checkpoint that is missing, damaged, or from another model, data set or format version."""


class DamagedCheckpointError(CheckpointError):
    """A damaged or incomplete checkpoint; an older one may be used instead."""


class UnreachableError(CheckpointError):
    """A checkpoint store that currently cannot be read or written."""

    exit_code = 1


class SilentStoreError(UnreachableError):
    """A store that does not respond. A thread of this process may hang in it forever, so the program exits without
    waiting for any thread."""


class TrainingError(SglocError):
    """A run that cannot continue."""


class LostRankError(TrainingError):
    """A run that has lost a process, or in which one hangs; a restarted run resumes."""

    exit_code = 1


class OtherRankError(TrainingError):
    """An error on another rank that is not an `SglocError`; that rank reports it, and this one takes its exit code."""

    exit_code = 1


def nearest(name: str, known: Iterable[str], *, dashes: str = "", cutoff: float = 0.6) -> str:
    """Return "; did you mean ...?" with the closest known name, to end a message; empty if none is close.

    Args:
        name: the unknown name.
        known: all known names.
        dashes: prefix of the name on the command line; a name with a prefix is not quoted.
        cutoff: minimum similarity of the names, from 0 to 1.
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    if not near:
        return ""
    return f"; did you mean {dashes}{near[0]}?" if dashes else f"; did you mean {near[0]!r}?"
