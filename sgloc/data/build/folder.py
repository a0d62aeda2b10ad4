"""The folder that shards are built in."""

import contextlib
import re
import uuid
from collections.abc import Iterator
from typing import Any, Self

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from sgloc.errors import DataError

_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")


@contextlib.contextmanager
def writing_shards(location: str) -> Iterator[None]:
    """Turn what the file system says inside into one sentence.

    Raises:
        DataError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write shards to {location} ({error}); give a folder that can be written") from error


class Folder:
    """A folder, local or behind a URL, of files that are there as a whole or not at all.

    Args:
        location: a path or fsspec URL.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self.file_system, self.root = fsspec.core.url_to_fs(location)
        self.is_local = isinstance(self.file_system, LocalFileSystem)

    def make(self, name: str = "") -> None:
        """Make the folder, or one in it; it may be there."""
        self.file_system.makedirs(self.path(name), exist_ok=True)

    def path(self, name: str) -> str:
        """Where a file of this folder is, to its file system."""
        return f"{self.root}/{name}" if name else str(self.root)

    def sizes(self, name: str = "") -> dict[str, int]:
        """The files in the folder, or in one in it, with their sizes in bytes; none where there is no folder."""
        self.file_system.invalidate_cache()
        try:
            found = self.file_system.ls(self.path(name), detail=True)
        except FileNotFoundError:
            return {}
        except OSError:
            raise
        # Each file system behind fsspec has errors of its own. This is where a folder is looked at first.
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in found if entry["type"] == "file"}

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        return bytes(self.file_system.cat_file(self.path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it."""
        with self.create(name) as file:
            file.write(content)

    def create(self, name: str) -> "NewFile":
        """Begin to write a file."""
        return NewFile(self, name)

    def remove(self, name: str) -> None:
        """Remove a file that may have been removed by another process."""
        with contextlib.suppress(FileNotFoundError):
            self.file_system.rm_file(self.path(name))

    def remove_empty(self, name: str) -> None:
        """Remove a folder in this one, unless something is in it."""
        with contextlib.suppress(OSError):
            self.file_system.rmdir(self.path(name))

    def remove_partial(self, name: str, *beginnings: str) -> None:
        """Remove what killed processes left in the folder, or in one in it, of files whose names begin so."""
        for found in self.sizes(name):
            if found.startswith(beginnings) and _PARTIAL.search(found):
                self.remove(f"{name}/{found}" if name else found)


class NewFile:
    """A file that is there once it is finished; as a context, unless it is left by an exception.

    Where the folder is local, it grows under another name; other file systems show a file when it is closed.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._written_name = f"{name}.{uuid.uuid4().hex}.partial" if folder.is_local else name
        self._stream: Any = folder.file_system.open(folder.path(self._written_name), "wb")

    def write(self, content: bytes) -> int:
        """Append bytes."""
        return int(self._stream.write(content))

    def finish(self) -> None:
        """Give it its name."""
        self._stream.close()
        if self._folder.is_local:
            self._folder.file_system.mv(self._folder.path(self._written_name), self._folder.path(self._name))

    def discard(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._folder.remove(self._written_name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.discard()
