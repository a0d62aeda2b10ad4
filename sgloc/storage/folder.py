"""`Storage`, a folder of files on a local disk or in any store behind an fsspec URL."""

import contextlib
import functools
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fsspec.implementations.local import LocalFileSystem

from sgloc.errors import CheckpointError, DamagedCheckpointError, UnreachableError
from sgloc.storage.file_system import of_this_process, open_file_system, read_range
from sgloc.storage.retry import SHORT, Retries, describe, is_transient, retry, writing

_PIECE_BYTES = 2**23
_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")

Value = TypeVar("Value")


class Storage:
    """A folder whose files are written atomically: complete or absent. Safe to use from several threads.

    Transient errors are retried, except in `create` and `write`: only the caller knows whether it can produce the
    content again.

    Args:
        location: path or URL of the folder.
        retries: number of attempts and delays between them; None means `retry.SHORT`.

    Attributes:
        moved: monotonic time of the last write, rename or removal.
        num_retries: number of retries so far.

    Raises:
        DataError: if the URL cannot be used.
    """

    def __init__(self, location: str, retries: Retries | None = None) -> None:
        self.location = location.rstrip("/") or location
        self.retries = retries or SHORT
        self.file_system: Any
        self.file_system, root = open_file_system(self.location, self.retries.timeout)
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.file_system, LocalFileSystem)
        self.moved = time.monotonic()
        self.num_retries, self._counting = 0, threading.Lock()

    def path(self, name: str = "") -> str:
        """Return the path of a file or folder in the file system."""
        return f"{self.root}/{name}".rstrip("/")

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Turn any error of reading a file inside the context into a CheckpointError.

        Raises:
            UnreachableError: for a transient error of a remote store.
            DamagedCheckpointError: for any other error, so that the caller may fall back to an older checkpoint.
        """
        path = f"{self.location}/{name}"
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            if is_transient(error) and not self.is_local:
                raise UnreachableError(
                    f"{path} cannot be read ({describe(error)}); check the network and the server, then start again"
                ) from error
            if isinstance(error, FileNotFoundError):
                raise DamagedCheckpointError(f"{path} is missing") from error
            raise DamagedCheckpointError(f"{path} cannot be read ({describe(error)})") from error

    def retry(self, action: Callable[[], Value], what: str, *, verb: str = "read") -> Value:
        """Call `action`, with this folder's retries; see `retry.retry`."""
        return retry(action, what, self.retries, verb=verb, counted=self._count)

    def _count(self) -> None:
        with self._counting:
            self.num_retries += 1

    def read(self, name: str, start: int, stop: int, *, file_size: int | None = None) -> bytes:
        """Read a byte range of a file; see `read_range`."""
        path = self.path(name)
        what = f"bytes {start} to {stop} of {path}"
        return self.retry(lambda: read_range(self.file_system, path, start, stop, file_size=file_size), what)

    def content(self, name: str) -> bytes:
        """Read a small file at once."""
        path = self.path(name)
        content: bytes = self.retry(lambda: of_this_process(self.file_system).cat_file(path), path)
        return content

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a file's content in chunks of 8 MiB; in one piece if the server does not report the file's size."""
        size = self.size(name)
        if size is None:
            yield self.content(name)
        for start in range(0, size or 0, _PIECE_BYTES):
            yield self.read(name, start, min(start + _PIECE_BYTES, size or 0), file_size=size)

    def exists(self, name: str = "") -> bool:
        """Return whether a file or folder exists."""
        self.file_system.invalidate_cache()
        return bool(self.retry(lambda: self.file_system.exists(self.path(name)), self.path(name)))

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if the server does not report it."""
        self.file_system.invalidate_cache()
        size: int | None = self.retry(lambda: self.file_system.size(self.path(name)), self.path(name))
        return size

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the sizes in bytes of a folder's entries, by name; empty if the folder does not exist."""
        # The client's cached listing misses files written by other processes.
        self.file_system.invalidate_cache()
        path = self.path(folder)
        try:
            entries = self.retry(lambda: self.file_system.ls(path, detail=True), path)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry["size"] or 0 for entry in entries}

    def make_folder(self, folder: str = "") -> None:
        """Create a folder and its parents, if they do not exist."""
        self.file_system.makedirs(self.path(folder), exist_ok=True)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[Callable[[bytes | memoryview], None]]:
        """Write or replace a file through the write function that the context yields.

        The file appears when the context exits without an exception; a local file is then synced to disk. A local file
        is written under a temporary name and renamed; other file systems publish a file only when it is closed.
        """
        written = self.path(f"{name}.{uuid.uuid4().hex}.partial" if self.is_local else name)
        stream = self.file_system.open(written, "wb")

        def write(content: bytes | memoryview) -> None:
            stream.write(content)
            self.moved = time.monotonic()

        try:
            yield write
            if self.is_local:
                stream.flush()
                os.fsync(stream.fileno())
            stream.close()
            if self.is_local:
                Path(written).replace(self.path(name))
        except BaseException:
            # Remove the partial file if the store still answers, but raise the original error.
            for undo in (stream.close, functools.partial(self.file_system.rm_file, written)):
                with contextlib.suppress(Exception):
                    undo()
            raise

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Write or replace a file; a local file is synced to disk."""
        with self.create(name) as write:
            for chunk in chunks:
                write(chunk)

    def save(self, files: Mapping[str, bytes]) -> None:
        """Write or replace small files, given by name, creating folders and retrying transient errors.

        Raises:
            DataError: if a file cannot be written.
        """
        with writing(self.location):
            for name, content in files.items():
                self.make_folder(name.rpartition("/")[0])
                self.retry(lambda name=name, content=content: self.write(name, [content]), name, verb="written")  # type: ignore[misc]

    def rename(self, source: str, target: str, names: list[str]) -> None:
        """Rename a folder of files: atomically if local; in a store, file by file, in the order of `names`."""
        if self.is_local:
            Path(self.path(source)).rename(self.path(target))
            # Sync the parent folder too, so that the new name survives a loss of power.
            folder = os.open(self.root, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            return
        self.make_folder(target)
        for name in names:
            pair = (self.path(f"{source}/{name}"), self.path(f"{target}/{name}"))
            self.retry(lambda pair=pair: self.file_system.cp_file(*pair), pair[1], verb="written")  # type: ignore[misc]
            self.moved = time.monotonic()
        self.remove(source, names[-1])

    def remove(self, folder: str, first: str) -> None:
        """Remove a folder of files if it exists, starting with the file `first`."""
        for name in sorted(self.sizes(folder), key=lambda name: name != first):
            self.remove_file(f"{folder}/{name}")
        # Most stores have no real folders to remove.
        with contextlib.suppress(FileNotFoundError, NotImplementedError):
            if self.is_local or self.file_system.isdir(self.path(folder)):
                self.file_system.rmdir(self.path(folder))

    def remove_file(self, name: str) -> None:
        """Remove a file; it is no error if another process has removed it."""
        path = self.path(name)
        # A request that failed may still have removed the file.
        with contextlib.suppress(FileNotFoundError):
            self.retry(lambda: self.file_system.rm_file(path), path, verb="removed")
        self.moved = time.monotonic()

    def remove_if_empty(self, folder: str) -> None:
        """Remove a subfolder if it is empty."""
        with contextlib.suppress(OSError):
            self.file_system.rmdir(self.path(folder))

    def remove_partial(self, folder: str, *beginnings: str) -> None:
        """Remove partial files left by killed processes, if their names start with one of `beginnings`."""
        for name in self.sizes(folder):
            if name.startswith(beginnings) and _PARTIAL.search(name):
                self.remove_file(f"{folder}/{name}" if folder else name)
