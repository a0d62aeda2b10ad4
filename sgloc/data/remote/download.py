"""Brings a remote file to a local path: what was interrupted goes on, and what came is what was to come."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from io import FileIO
from pathlib import Path

from sgloc.data.remote.access import DamagedReadError, Retries, open_file_system, retrying
from sgloc.data.remote.file import RANGE_BYTES, Answer, Identity, ask
from sgloc.errors import DataError
from sgloc.masking import mask

# Enough to tell a file's form by.
_HEAD_BYTES = 64

Progress = Callable[[int, int | None], None]


def _say_nothing(_: str) -> None:
    pass


def _count_nothing(_: int, __: int | None) -> None:
    pass


def download(
    url: str,
    path: str,
    *,
    retries: Retries | None = None,
    told: Callable[[str], None] = _say_nothing,
    progress: Progress = _count_nothing,
) -> None:
    """Bring a remote file to a local path, which it replaces once it is whole.

    Until then it is ``path + ".part"``, with ``path + ".part.json"`` telling which file it is a part of: a download
    that was killed goes on from there. It starts over when the server's length or ETag has changed since, and where the
    server knows no ranges. The length is checked, the content by its MD5 where a server of S3 or Google tells that, and
    the beginning by what the path's ending promises: .npz, .ndjson, .bin or .gz.

    Args:
        url: a local path or any fsspec URL.
        path: local; its folder exists.
        retries: how often each range is tried, and the file started over.
        told: is given a sentence about every retry.
        progress: is given the bytes that are there, and how many there will be where that is known.

    Raises:
        DataError: if the file is missing, forbidden, stays unreadable or damaged, or is not what its ending promises;
            if the path cannot be written, or another process is downloading to it. What came is kept unless it is
            wrong, so that it can go on.
    """
    retries = retries or Retries()
    file_system, remote_path = open_file_system(url, retries.timeout)
    with _open_part(path) as file:
        part = _Part(url, path, file, progress)

        def step() -> bool:
            with ask(file_system, remote_path, part.position) as answer:
                part.take(answer)
            return part.is_complete()

        while not retrying(step, url, retries, told):
            if part.num_starts_over >= retries.num_attempts:
                raise DataError(f"{url} was started over {part.num_starts_over} times: {part.trouble}; try again later")
        part.finish()


class _Part:
    """The local file as far as it has come.

    Attributes:
        position: bytes of it that are there.
        num_starts_over: how often it was begun again.
        trouble: why, the last time.
    """

    def __init__(self, url: str, path: str, file: FileIO, progress: Progress) -> None:
        self.url, self.path, self.file, self.progress = url, path, file, progress
        self.position = self.num_starts_over = 0
        self.trouble = ""
        self._sidecar = Path(f"{path}.part.json")
        self._identity = self._recall()
        if self._identity is not None and self._identity.num_bytes:
            # At least one range is asked for, which shows whether the file is still the same. All before the last that
            # is there were synced, so that they are sound even if the machine stopped.
            length = min(os.fstat(file.fileno()).st_size, self._identity.num_bytes - 1)
            self.position = length - length % RANGE_BYTES

    def take(self, answer: Answer) -> None:
        """Write an answer down.

        Raises:
            DamagedReadError: if it is from another file than what is there, or is nothing.
            DataError: if it cannot be written.
        """
        if self._identity is None:
            self._remember(answer.identity)
        elif self._identity != answer.identity:
            self._start_over("it has changed on its server since its first bytes came")
        self.position = answer.start
        with _writing(self.path):
            self.file.truncate(self.position)
            self.file.seek(self.position)
        for piece in answer.pieces:
            with _writing(self.path):
                rest = memoryview(piece)
                while rest:
                    rest = rest[self.file.write(rest) :]
            self.position += len(piece)
            self.progress(self.position, answer.identity.num_bytes)
        with _writing(self.path):
            os.fsync(self.file.fileno())
        if self.position == answer.start and self.position != answer.identity.num_bytes:
            raise DamagedReadError("its server sends nothing")

    def is_complete(self) -> bool:
        """Whether all of it is there.

        Raises:
            DataError: if it is not what its ending promises.
            DamagedReadError: if it is damaged.
        """
        assert self._identity is not None
        is_complete = self._identity.num_bytes in (None, self.position)
        if is_complete or self.position >= _HEAD_BYTES:
            try:
                _check_head(os.pread(self.file.fileno(), _HEAD_BYTES, 0), self.path, self.url)
            except DataError:
                Path(f"{self.path}.part").unlink()
                self._sidecar.unlink(missing_ok=True)
                raise
        if is_complete and self._identity.md5 not in (None, self._digest()):
            self._start_over("it is damaged: its MD5 is another than its server tells")
        return is_complete

    def finish(self) -> None:
        """Give it its name."""
        with _writing(self.path):
            Path(f"{self.path}.part").replace(self.path)
            self._sidecar.unlink(missing_ok=True)

    def _start_over(self, trouble: str) -> None:
        self.num_starts_over, self.trouble = self.num_starts_over + 1, trouble
        self.position, self._identity = 0, None
        with _writing(self.path):
            self._sidecar.unlink(missing_ok=True)
            self.file.truncate(0)
        raise DamagedReadError(f"{trouble}, and is downloaded from the start")

    def _digest(self) -> str:
        self.file.seek(0)
        return hashlib.file_digest(self.file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def _remember(self, identity: Identity) -> None:
        with _writing(self.path):
            self.file.truncate(0)
            self._sidecar.write_text(json.dumps({"url": mask(self.url), **asdict(identity)}))
        self._identity = identity

    def _recall(self) -> Identity | None:
        """What the file was a part of when it was left; None if nobody knows, as when the machine stopped meanwhile."""
        try:
            fields = json.loads(self._sidecar.read_text())
            return Identity(**fields) if fields.pop("url") == mask(self.url) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


@contextlib.contextmanager
def _open_part(path: str) -> Iterator[FileIO]:
    """Open the part of a file for this process alone. The kernel lets go of it however the process ends."""
    with _writing(path):
        file = FileIO(os.open(f"{path}.part", os.O_RDWR | os.O_CREAT, 0o666), "r+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process is downloading to {path}; wait for it, or stop it") from error
        except OSError:
            # No locks here, as on some network file systems.
            pass
        try:
            is_ours = os.path.samestat(os.fstat(file.fileno()), Path(f"{path}.part").stat())
        except FileNotFoundError:
            is_ours = False
        if not is_ours:
            # Between opening and locking it was given its name.
            raise DataError(f"another process has just downloaded to {path}; start again")
        yield file


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """Turn whatever goes wrong with the local file into a DataError, which is not retried."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the download to {path} cannot be written ({error.strerror}); make room, or give another folder"
        ) from error


def _check_head(head: bytes, path: str, url: str) -> None:
    """Compare a file's first bytes with what its ending promises.

    Raises:
        DataError: if they are of another form.
    """
    # A binary drawing's first byte may be any character, but within its first sixteen is a 0 or 1.
    is_text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head[:16])
    forms = {
        ".npz": ("a zip archive", head.startswith(b"PK")),
        ".gz": ("a gzip file", head.startswith(b"\x1f\x8b")),
        ".ndjson": ("ndjson", head.lstrip().startswith(b"{")),
        ".bin": ("a binary file of drawings", not is_text),
    }
    form, is_right = forms.get(Path(path).suffix, ("", True))
    if is_right:
        return
    if not head:
        raise DataError(f"{url} is empty, where {form} was expected; check the URL")
    looks_like = " an error page?" if is_text else " another form?"
    raise DataError(f"{url} is not {form} but begins with {head[:24]!r}:{looks_like} Check the URL")
