"""The logger that saves a run's pictures as files."""

from sgloc.storage import Storage
from sgloc.threads import Patience
from sgloc.train.loggers.base import Logger


class PictureFiles(Logger):
    """Writes pictures to gallery/step-<step>-<name>.png in the run folder."""

    name = "the gallery"

    def __init__(self, run_dir: str, patience: float = 10.0) -> None:
        self._storage = Storage(run_dir)
        self._patience = Patience(patience, f"the store of {run_dir}")

    def show(self, name: str, step: int, png: bytes) -> None:
        """Write a picture.

        Raises:
            DataError: if it cannot be written.
            SilentStoreError: if the store does not answer.
        """
        path = f"gallery/step-{step:08d}-{name.rpartition('/')[2]}.png"
        self._patience(lambda: self._storage.save({path: png}))
