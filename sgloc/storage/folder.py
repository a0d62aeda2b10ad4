"""A folder of files, local or in any store behind an fsspec URL."""

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
    """A folder of files that are there as a whole or not at all. Several threads may use it at the same time.

    What fails and may pass is tried again, but for writing: the caller knows whether its content can be made again.

    Args:
        location: path or URL.
        retries: how often, and how long to wait; None is `retry.SHORT`.

    Attributes:
        moved: when something was last written, renamed or removed, by the monotonic clock.
        num_retries: reads that were tried again.

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
        """A file's or folder's path in the file system."""
        return f"{self.root}/{name}".rstrip("/")

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Inside, what goes wrong with reading a file becomes a CheckpointError, which says whether an older checkpoint
        may be taken: it is a DamagedCheckpointError unless the store cannot be reached for now."""
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
        """Do something as often as this folder's retries allow; see `retry.retry`."""
        return retry(action, what, self.retries, verb=verb, counted=self._count)

    def _count(self) -> None:
        with self._counting:
            self.num_retries += 1

    def read(self, name: str, start: int, stop: int, *, file_size: int | None = None) -> bytes:
        """Bytes of a file; see `read_range`."""
        path = self.path(name)
        what = f"bytes {start} to {stop} of {path}"
        return self.retry(lambda: read_range(self.file_system, path, start, stop, file_size=file_size), what)

    def content(self, name: str) -> bytes:
        """A small file."""
        path = self.path(name)
        content: bytes = self.retry(lambda: of_this_process(self.file_system).cat_file(path), path)
        return content

    def pieces(self, name: str) -> Iterator[bytes]:
        """A file's content, some megabytes at a time; all at once where its server does not tell its size."""
        size = self.size(name)
        if size is None:
            yield self.content(name)
        for start in range(0, size or 0, _PIECE_BYTES):
            yield self.read(name, start, min(start + _PIECE_BYTES, size or 0), file_size=size)

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder."""
        self.file_system.invalidate_cache()
        return bool(self.retry(lambda: self.file_system.exists(self.path(name)), self.path(name)))

    def size(self, name: str) -> int | None:
        """A file's size in bytes; None where a server does not tell."""
        self.file_system.invalidate_cache()
        size: int | None = self.retry(lambda: self.file_system.size(self.path(name)), self.path(name))
        return size

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The sizes in bytes of all that is in a folder, by name; empty where there is none."""
        # What other processes write, a store's client does not know of.
        self.file_system.invalidate_cache()
        path = self.path(folder)
        try:
            entries = self.retry(lambda: self.file_system.ls(path, detail=True), path)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry["size"] or 0 for entry in entries}

    def make_folder(self, folder: str = "") -> None:
        """Make a folder, and those it is in, unless they are there."""
        self.file_system.makedirs(self.path(folder), exist_ok=True)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[Callable[[bytes | memoryview], None]]:
        """Write a file, or replace it, with what the function that this gives is called with.

        It is there once the context is left, unless by an exception; a local one is then on the disk. In a local folder
        it grows under another name; other file systems show a file when it is closed.
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
            # Nothing is left of it, if its store still answers; what went wrong before is the error to raise.
            for undo in (stream.close, functools.partial(self.file_system.rm_file, written)):
                with contextlib.suppress(Exception):
                    undo()
            raise

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Write a file, or replace it; a local one is on the disk when this returns."""
        with self.create(name) as write:
            for chunk in chunks:
                write(chunk)

    def save(self, files: Mapping[str, bytes]) -> None:
        """Write small files by name, or replace them; folders are made, and what fails and may pass is tried again.

        Raises:
            DataError: if they cannot be written.
        """
        with writing(self.location):
            for name, content in files.items():
                self.make_folder(name.rpartition("/")[0])
                self.retry(lambda name=name, content=content: self.write(name, [content]), name, verb="written")  # type: ignore[misc]

    def rename(self, source: str, target: str, names: list[str]) -> None:
        """Give a folder of these files another name: at once or, where a store cannot, file by file in this order."""
        if self.is_local:
            Path(self.path(source)).rename(self.path(target))
            # The new name, too, is to outlast a loss of power.
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
        """Remove a folder of files, if it is there, and one of them before all others."""
        for name in sorted(self.sizes(folder), key=lambda name: name != first):
            self.remove_file(f"{folder}/{name}")
        # Most stores have no folders.
        with contextlib.suppress(FileNotFoundError, NotImplementedError):
            if self.is_local or self.file_system.isdir(self.path(folder)):
                self.file_system.rmdir(self.path(folder))

    def remove_file(self, name: str) -> None:
        """Remove a file that another process may have removed."""
        path = self.path(name)
        # A request that failed may have done its work.
        with contextlib.suppress(FileNotFoundError):
            self.retry(lambda: self.file_system.rm_file(path), path, verb="removed")
        self.moved = time.monotonic()

    def remove_if_empty(self, folder: str) -> None:
        """Remove a folder in this one, unless something is in it."""
        with contextlib.suppress(OSError):
            self.file_system.rmdir(self.path(folder))

    def remove_partial(self, folder: str, *beginnings: str) -> None:
        """Remove what killed processes left in a folder of files whose names begin so."""
        for name in self.sizes(folder):
            if name.startswith(beginnings) and _PARTIAL.search(name):
                self.remove_file(f"{folder}/{name}" if folder else name)
