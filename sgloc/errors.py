"""What a user's mistake raises.

Every error says what was wrong, where, and what to do, in one sentence; the command line prints it and exits with 2.
"""


class SglocError(ValueError):
    """A mistake in what the user gave; the ancestor of every error that is told without a traceback.

    Attributes:
        told: whether rank 0 tells it, so that this process need not.
    """

    told = False


class ConfigError(SglocError):
    """An option, or a combination of options, that cannot be."""


class DataError(SglocError):
    """A file or shard that is missing, unreadable, or not what it claims to be."""


class CheckpointError(SglocError):
    """A checkpoint that is missing, damaged, or of another model, data set or format version."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is not whole, in whose place an older one may be taken."""


class TrainingError(SglocError):
    """A run that cannot go on."""
