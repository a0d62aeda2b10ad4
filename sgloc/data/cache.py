"""A folder of blocks on a fast disk, shared by the processes of a node, kept within a limit by up to eight of them.

There is no lock and no index, so that nothing is left behind by a process that is killed: a block is written under a
name of its own and renamed, a block that is read becomes the youngest, and whoever has written enough deletes the
oldest files. All of them lie in a folder of our own in the one that the user names, so that nothing else is deleted.
Two processes that want the same block at the same moment both fetch it.
"""

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from sgloc.errors import ConfigError

# Each process makes room for 1/8 of the limit whenever it has written 1/64: eight processes stay within it.
_FREED_PART = 8
_WRITTEN_PART = 64
_OWN_FOLDER = "sgloc-blocks"


class BlockCache:
    """Blocks by name.

    Args:
        folder: local; it is made if it is not there. Blocks go into a folder in it.
        limit: most bytes that all its files together may take.

    Raises:
        ConfigError: if the folder cannot be made.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self.folder, self.limit = Path(folder, _OWN_FOLDER), limit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the cache {folder} cannot be made ({error}); give another data.cache") from error
        self._lock = threading.Lock()
        self._num_written = limit

    def get(self, name: str) -> bytes | None:
        """A block's content, or None where it is not there; its checksum is the reader's to check."""
        path = self.folder / name
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return content

    def put(self, name: str, content: bytes) -> None:
        """Keep a block, unless there is no room for it, or others make room by it at once.

        Raises:
            OSError: if it cannot be written; what is there stays sound.
        """
        if len(content) > self.limit / _FREED_PART:
            return
        self._make_room(len(content))
        path = self.folder / name
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            # Others that make room may take this file for the oldest, where all are of the same moment.
            with contextlib.suppress(FileNotFoundError):
                temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def drop(self, name: str) -> None:
        """Forget a block, whether or not it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def _make_room(self, num_bytes: int) -> None:
        with self._lock:
            self._num_written += num_bytes
            if self._num_written < self.limit / _WRITTEN_PART:
                return
            self._num_written = num_bytes
            entries = sorted(self._entries())
            excess = sum(size for _, size, _ in entries) + num_bytes - self.limit * (1 - 1 / _FREED_PART)
            for _, size, path in entries:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Age, size and path of every file; another process may delete them meanwhile."""
        for folder, _, names in os.walk(self.folder):
            for path in map(Path(folder).joinpath, names):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    yield status.st_mtime, status.st_size, path
