"""The run's pictures as files beside it."""

import fsspec.core

from sgloc.train.loggers.protocol import Record


class PictureFiles:
    """gallery/step-<step>-<name>.png in the run's folder or URL."""

    name = "the gallery"

    def __init__(self, run_dir: str) -> None:
        self.file_system, root = fsspec.core.url_to_fs(run_dir)
        self.folder = f"{root}/gallery"

    def log(self, record: Record) -> None:
        """Records are no pictures."""

    def show(self, name: str, step: int, png: bytes) -> None:
        """Write a picture.

        Raises:
            OSError: if it cannot be written.
        """
        self.file_system.makedirs(self.folder, exist_ok=True)
        self.file_system.pipe_file(f"{self.folder}/step-{step:08d}-{name.rpartition('/')[2]}.png", png)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is held back."""
