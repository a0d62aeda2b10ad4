"""A block cache on a fast local disk, shared by the processes of a node; up to eight of them keep it within its limit.

The cache has no locks and no index, so that a killed process leaves nothing stale behind. A block is written under a
unique name and renamed into place, a read refreshes the block's age, and a process that has written enough evicts the
oldest files. All blocks are in a subfolder of our own within the user's folder, so that eviction deletes nothing else.
Two processes that want the same block at the same time both fetch it.
"""

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from sgloc.errors import ConfigError

# Each process frees 1/8 of the limit whenever it has written 1/64 of it, so that eight processes stay within the limit.
_FREED_PART = 8
_WRITTEN_PART = 64
_OWN_FOLDER = "sgloc-blocks"


class BlockCache:
    """A size-limited cache of blocks by name.

    Args:
        folder: local folder, created if missing; blocks are stored in a subfolder.
        limit: maximum total size of the cached blocks, in bytes.

    Raises:
        ConfigError: if the folder cannot be created.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self.folder, self.limit = Path(folder, _OWN_FOLDER), limit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot create the cache {folder} ({error}); choose another data.cache") from error
        self._lock = threading.Lock()
        self._num_written = limit

    def get(self, name: str) -> bytes | None:
        """Return a block's content, or None if it is not cached; the caller verifies the checksum."""
        path = self.folder / name
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return content

    def put(self, name: str, content: bytes) -> None:
        """Store a block, unless it is too large for the cache or another process evicts it at once.

        Raises:
            OSError: if the block cannot be written; the cached blocks stay intact.
        """
        if len(content) > self.limit / _FREED_PART:
            return
        self._make_room(len(content))
        path = self.folder / name
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            # Another process may evict this temporary file as the oldest if all files are of the same age.
            with contextlib.suppress(FileNotFoundError):
                temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def drop(self, name: str) -> None:
        """Remove a block from the cache, if present."""
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
        """Yield modification time, size and path of every file; skip files that other processes delete meanwhile."""
        for folder, _, names in os.walk(self.folder):
            for path in map(Path(folder).joinpath, names):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    yield status.st_mtime, status.st_size, path
