"""The file systems that checkpoints stand in: a local one, or any store behind an fsspec URL."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fsspec.implementations.local import LocalFileSystem

from sgloc.data.remote.access import Retries, is_transient, open_file_system, read_range
from sgloc.errors import CheckpointError, DamagedCheckpointError, SglocError, UnreachableError

# A save that fails is done again at the next one; this is for what passes within seconds.
_RETRIES = Retries(num_attempts=3, first_delay=0.5, longest_delay=5.0, timeout=30.0)

Value = TypeVar("Value")


def patiently(action: Callable[[], Value]) -> Value:
    """Do something with a store, and again after an error that may pass; the last one is raised."""
    for attempt in range(1, _RETRIES.num_attempts):
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(_RETRIES.delay(attempt))
    return action()


@contextlib.contextmanager
def _damaged_or_unreachable(path: str, *, is_local: bool) -> Iterator[None]:
    """Turn what a file system raises into an error that says whether an older checkpoint may be taken: not while a
    store cannot be reached."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        if is_transient(error) and not is_local:
            raise UnreachableError(
                f"{path} cannot be read ({describe(error)}); check the network and the server, then start again"
            ) from error
        if isinstance(error, FileNotFoundError):
            raise DamagedCheckpointError(f"{path} is missing") from error
        raise DamagedCheckpointError(f"{path} cannot be read ({describe(error)})") from error


def describe(error: BaseException) -> str:
    """An error in one line: what an operating system says, or whatever a store's library has to say."""
    text = " ".join(str(error).split())
    if isinstance(error, SglocError) or (isinstance(error, OSError) and error.errno is not None):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Storage:
    """A folder, local or in a store.

    Args:
        location: path or URL.

    Attributes:
        moved: when something was last written, renamed or removed, by the monotonic clock.

    Raises:
        DataError: if the URL cannot be used.
    """

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/")
        self.file_system: Any
        self.file_system, root = open_file_system(self.location, _RETRIES.timeout)
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.file_system, LocalFileSystem)
        self.moved = time.monotonic()

    def path(self, name: str) -> str:
        """A file's or folder's path in the file system."""
        return f"{self.root}/{name}".rstrip("/")

    def reading(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Inside, what goes wrong with reading a file becomes a CheckpointError, a DamagedCheckpointError unless it may
        pass."""
        return _damaged_or_unreachable(f"{self.location}/{name}", is_local=self.is_local)

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Bytes of a file."""
        return patiently(lambda: read_range(self.file_system, self.path(name), start, stop))

    def content(self, name: str) -> bytes:
        """A small file."""
        content: bytes = patiently(lambda: self.file_system.cat_file(self.path(name)))
        return content

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder."""
        self.file_system.invalidate_cache()
        return bool(patiently(lambda: self.file_system.exists(self.path(name))))

    def size(self, name: str) -> int | None:
        """A file's size in bytes; None where a server does not tell."""
        self.file_system.invalidate_cache()
        size: int | None = patiently(lambda: self.file_system.size(self.path(name)))
        return size

    def sizes(self, folder: str) -> dict[str, int]:
        """The sizes in bytes of all that is in a folder, by name; empty where there is none."""
        # What other processes write, a store's client does not know of.
        self.file_system.invalidate_cache()
        try:
            entries = patiently(lambda: self.file_system.ls(self.path(folder), detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry["size"] or 0 for entry in entries}

    def make_folder(self, folder: str) -> None:
        """Make a folder, and those it is in, unless they are there."""
        self.file_system.makedirs(self.path(folder), exist_ok=True)

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Write a file; a local one is on the disk when this returns."""
        with self.file_system.open(self.path(name), "wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
                self.moved = time.monotonic()
            if self.is_local:
                stream.flush()
                os.fsync(stream.fileno())

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
            patiently(lambda pair=pair: self.file_system.cp_file(*pair))  # type: ignore[misc]
            self.moved = time.monotonic()
        self.remove(source, names[-1])

    def remove(self, folder: str, first: str) -> None:
        """Remove a folder of files, if it is there, and one of them before all others."""
        names = self.sizes(folder)
        for name in sorted(names, key=lambda name: name != first):
            path = self.path(f"{folder}/{name}")
            # A request that failed may have done its work.
            with contextlib.suppress(FileNotFoundError):
                patiently(lambda path=path: self.file_system.rm_file(path))  # type: ignore[misc]
            self.moved = time.monotonic()
        # Most stores have no folders.
        with contextlib.suppress(FileNotFoundError, NotImplementedError):
            if self.is_local or self.file_system.isdir(self.path(folder)):
                self.file_system.rmdir(self.path(folder))
