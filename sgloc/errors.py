"""What a user's mistake raises, and what cannot be reached.

Every error says what was wrong, where, and what to do, in one sentence, which the command line prints.
"""


class SglocError(ValueError):
    """A mistake in what the user gave; the ancestor of every error that is told without a traceback.

    Attributes:
        told: whether rank 0 tells it, so that this process need not.
        exit_code: of the command that it ends. 2: it would come again. 1: the same command may succeed later; launchers
            start training again.
    """

    told = False
    exit_code = 2


class ConfigError(SglocError):
    """An option, or a combination of options, that cannot be."""


class OccupiedError(ConfigError):
    """A run's folder that another run holds, or that cannot be written for now."""

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


class TrainingError(SglocError):
    """A run that cannot go on."""


class LostRankError(TrainingError):
    """A run one of whose processes is gone or hangs; started again, it goes on."""

    exit_code = 1
