"""The run's pictures as files beside it."""

from sgloc.storage import Storage
from sgloc.threads import Patience
from sgloc.train.loggers.base import Logger


class PictureFiles(Logger):
    """gallery/step-<step>-<name>.png in the run's folder or URL."""

    name = "the gallery"

    def __init__(self, run_dir: str, patience: float = 10.0) -> None:
        self._storage = Storage(run_dir)
        self._patience = Patience(patience, f"the store of {run_dir}")

    def show(self, name: str, step: int, png: bytes) -> None:
        """Write a picture.

        Raises:
            OSError: if it cannot be written.
        """
        path = f"gallery/step-{step:08d}-{name.rpartition('/')[2]}.png"

        def write() -> None:
            self._storage.make_folder("gallery")
            self._storage.write(path, [png])

        self._patience(write)
