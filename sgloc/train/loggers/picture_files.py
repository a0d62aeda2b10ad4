"""The run's pictures as files beside it."""

import fsspec.core

from sgloc.threads import Patience
from sgloc.train.loggers.protocol import Record


class PictureFiles:
    """gallery/step-<step>-<name>.png in the run's folder or URL."""

    name = "the gallery"

    def __init__(self, run_dir: str, patience: float = 10.0) -> None:
        self.file_system, root = fsspec.core.url_to_fs(run_dir)
        self.folder = f"{root}/gallery"
        self._patience = Patience(patience, f"the store of {run_dir}")

    def log(self, record: Record) -> None:
        """Records are no pictures."""

    def show(self, name: str, step: int, png: bytes) -> None:
        """Write a picture.

        Raises:
            OSError: if it cannot be written.
        """
        path = f"{self.folder}/step-{step:08d}-{name.rpartition('/')[2]}.png"

        def write() -> None:
            self.file_system.makedirs(self.folder, exist_ok=True)
            self.file_system.pipe_file(path, png)

        self._patience(write)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is held back."""
