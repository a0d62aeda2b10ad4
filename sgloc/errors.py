"""What a user's mistake raises, and what cannot be reached.

Every error says what was wrong, where, and what to do, in one sentence, which the command line prints.
"""

import difflib
from collections.abc import Iterable
from typing import Any

from sgloc.masking import mask


class SglocError(ValueError):
    """A mistake in what the user gave; the ancestor of every error that is told without a traceback.

    Its text never shows a secret that stands in a URL.

    Attributes:
        told: whether rank 0 tells it, so that this process need not.
        exit_code: of the command that it ends. 2: it would come again. 1: the same command may succeed later; launchers
            start training again. 3: a fault of the program.
        trace: the traceback that it had in another process, if it comes from there.
    """

    told = False
    exit_code = 2
    trace = ""

    def __str__(self) -> str:
        return mask(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process sees neither the cause, which may decide the exit code, nor the traceback.
        from sgloc.faults import exit_code_of, trace_of

        kept = {**self.__dict__, "exit_code": exit_code_of(self), "trace": trace_of(self)}
        # Subclasses may take other arguments than their ancestor keeps, so they are not called.
        return type(self).__new__, (type(self), *self.args), kept


class ConfigError(SglocError):
    """An option, or a combination of options, that cannot be."""


class UsageError(ConfigError):
    """Words on a command line, or an option in a file, that a command does not take."""


class OccupiedError(ConfigError):
    """A run's folder that another run holds."""

    exit_code = 1


class DataError(SglocError):
    """A file or shard that is missing, unreadable, or not what it claims to be."""


class CheckpointError(SglocError):
    """A checkpoint that is missing, damaged, or of another model, data set or format version."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is not whole, in whose place an older one may be taken."""


class UnreachableError(CheckpointError):
    """A place for checkpoints that cannot be read or written for now."""

    exit_code = 1


class SilentStoreError(UnreachableError):
    """A store that does not answer, in which a thread of this process may hang for ever: the program does not wait for
    that thread, nor for anything else, when it ends."""


class TrainingError(SglocError):
    """A run that cannot go on."""


class LostRankError(TrainingError):
    """A run one of whose processes is gone or hangs; started again, it goes on."""

    exit_code = 1


class OtherRankError(TrainingError):
    """What other than our own errors another rank met, which tells of it itself; its exit code is this one's too."""

    exit_code = 1


def nearest(name: str, known: Iterable[str], *, dashes: str = "", cutoff: float = 0.6) -> str:
    """The end of a sentence that asks whether the nearest known name was meant; empty if none is near.

    Args:
        name: what was given.
        known: all names.
        dashes: what stands before a name on the command line; such a name needs no quotes.
        cutoff: how alike the names must be, from 0 to 1.
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    if not near:
        return ""
    return f"; did you mean {dashes}{near[0]}?" if dashes else f"; did you mean {near[0]!r}?"
