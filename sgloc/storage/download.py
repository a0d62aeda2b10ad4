"""Resumable, verified downloads of remote files."""

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem

from sgloc.errors import DataError
from sgloc.masking import mask
from sgloc.storage.file_system import open_file_system, read_range
from sgloc.storage.lock import lock
from sgloc.storage.retry import DamagedReadError, Retries, retry_reading, writing

# Every range response identifies the file's version, so that a download never mixes two versions.
RANGE_BYTES = 8 * 2**20
_PIECE_BYTES = 2**20
# Enough to recognise the file format.
_HEAD_BYTES = 64


def download(
    url: str, path: str, *, retries: Retries | None = None, check: Callable[[bytes], None] = lambda _: None
) -> None:
    """Download a remote file to a local path, replacing the path only when the download is complete.

    Until then the data are in ``path + ".part"``, and ``path + ".part.json"`` records the file's identity, so that an
    interrupted download resumes. The download starts over if the file's length or ETag has changed on the server, or if
    the server does not support ranges. The length is always checked; the MD5 is checked where S3 or Google provides it.

    Args:
        url: a local path or any fsspec URL.
        path: local path in an existing folder.
        retries: how often to try each range, and how often to start over.
        check: called with the first 64 bytes of the file, or with the whole file if it is shorter; raises DataError if
            they are wrong.

    Raises:
        DataError: if the file is missing or forbidden, stays unreadable or damaged, or fails `check`; if the path
            cannot be written, or another process is downloading to it. The partial download is kept, unless it is
            wrong, so that it can be resumed.
    """
    retries = retries or Retries()
    file_system, remote_path = open_file_system(url, retries.timeout)
    with _open_part(path) as file:
        part = _Part(url, path, file, check)

        def step() -> bool:
            with _ask(file_system, remote_path, part.position) as answer:
                part.take(*answer)
            return part.is_complete()

        while not retry_reading(step, url, retries):
            if part.num_starts_over >= retries.num_attempts:
                raise DataError(
                    f"the download of {url} started over {part.num_starts_over} times: {part.trouble}; try again later"
                )
        with writing(path, "the download"):
            Path(f"{path}.part").replace(path)
            part.sidecar.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Identity:
    """Identity of one version of a remote file.

    Attributes:
        num_bytes: length of the file; None if the server does not report it.
        tag: ETag, or a substitute for it.
        md5: hexadecimal MD5 of the content; None if the server does not report it.
    """

    num_bytes: int | None
    tag: str
    md5: str | None = field(compare=False)


_Answer = tuple[_Identity, int, Iterator[bytes]]
"""A response: the file's identity, the offset of the first byte received, and an iterator over the bytes."""


class _Part:
    """The partially downloaded local file.

    Attributes:
        position: number of bytes downloaded.
        sidecar: JSON file with the identity of the remote file.
        num_starts_over: how often the download started over.
        trouble: reason for the last start over.
    """

    def __init__(self, url: str, path: str, file: FileIO, check: Callable[[bytes], None]) -> None:
        self.url, self.path, self.file, self.check = url, path, file, check
        self.position = self.num_starts_over = 0
        self.trouble = ""
        self.sidecar = Path(f"{path}.part.json")
        self._identity = self._recall()
        if self._identity is not None and self._identity.num_bytes:
            # Request at least one range, to see whether the remote file is still the same. All ranges before the last
            # one on disk were synced, so they are intact even after a machine crash.
            length = min(os.fstat(file.fileno()).st_size, self._identity.num_bytes - 1)
            self.position = length - length % RANGE_BYTES

    def take(self, identity: _Identity, start: int, pieces: Iterator[bytes]) -> None:
        """Write a response to the file.

        Raises:
            DamagedReadError: if the remote file is no longer the one downloaded so far, or the response is empty.
            DataError: if the file cannot be written.
        """
        if self._identity is None:
            with writing(self.path, "the download"):
                self.sidecar.write_text(json.dumps({"url": mask(self.url), **asdict(identity)}))
            self._identity = identity
        elif self._identity != identity:
            self._start_over("the file changed on the server during the download")
        self.position = start
        with writing(self.path, "the download"):
            self.file.truncate(self.position)
            self.file.seek(self.position)
        for piece in pieces:
            with writing(self.path, "the download"):
                rest = memoryview(piece)
                while rest:
                    rest = rest[self.file.write(rest) :]
            self.position += len(piece)
        with writing(self.path, "the download"):
            os.fsync(self.file.fileno())
        if self.position == start and self.position != identity.num_bytes:
            raise DamagedReadError("the server sent no data")

    def is_complete(self) -> bool:
        """Return whether the download is complete, after checking it.

        Raises:
            DataError: if `check` rejects the file.
            DamagedReadError: if the file is damaged.
        """
        assert self._identity is not None
        is_complete = self._identity.num_bytes in (None, self.position)
        if is_complete or self.position >= _HEAD_BYTES:
            try:
                self.check(os.pread(self.file.fileno(), _HEAD_BYTES, 0))
            except DataError:
                Path(f"{self.path}.part").unlink()
                self.sidecar.unlink(missing_ok=True)
                raise
        if is_complete and self._identity.md5 is not None:
            self.file.seek(0)
            md5 = hashlib.file_digest(self.file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if md5 != self._identity.md5:
                self._start_over("the download is damaged: its MD5 differs from the server's")
        return is_complete

    def _start_over(self, trouble: str) -> None:
        self.num_starts_over, self.trouble = self.num_starts_over + 1, trouble
        self.position, self._identity = 0, None
        with writing(self.path, "the download"):
            self.sidecar.unlink(missing_ok=True)
            self.file.truncate(0)
        raise DamagedReadError(f"{trouble}; downloading it again from the start")

    def _recall(self) -> _Identity | None:
        """Return the recorded identity of the partial file; None if there is none, as after a machine crash."""
        try:
            fields = json.loads(self.sidecar.read_text())
            return _Identity(**fields) if fields.pop("url") == mask(self.url) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


@contextlib.contextmanager
def _open_part(path: str) -> Iterator[FileIO]:
    """Open the partial file, locked against other processes."""
    with writing(path, "the download"):
        file = FileIO(os.open(f"{path}.part", os.O_RDWR | os.O_CREAT, 0o666), "r+")
    with file:
        try:
            lock(file)
        except BlockingIOError as error:
            raise DataError(f"another process is downloading to {path}; wait for it or stop it") from error
        part = Path(f"{path}.part")
        # Another process may have finished and renamed the file between our opening and locking it.
        if not (part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat())):
            raise DataError(f"another process has just downloaded to {path}; start again")
        yield file


@contextlib.contextmanager
def _ask(file_system: AbstractFileSystem, path: str, start: int) -> Iterator[_Answer]:
    """Request RANGE_BYTES of a file from offset `start`; the server may send more, or the file from its beginning."""
    if "http" in file_system.protocol:
        with _ask_http(file_system, path, start) as answer:
            yield answer
        return
    identity = _identify(file_system, path)
    assert identity.num_bytes is not None
    stop = min(start + RANGE_BYTES, identity.num_bytes)

    def pieces() -> Iterator[bytes]:
        if start < stop:
            content = read_range(file_system, path, start, stop, file_size=identity.num_bytes)
            if _identify(file_system, path) != identity:
                raise DamagedReadError("the file changed while it was read")
            yield content

    yield identity, start, pieces()


@contextlib.contextmanager
def _ask_http(file_system: AbstractFileSystem, url: str, start: int) -> Iterator[_Answer]:
    """`_ask` for HTTP: the response headers describe its bytes, whatever happens to the file meanwhile."""
    headers = {**file_system.kwargs.get("headers", {}), "Range": f"bytes={start}-{start + RANGE_BYTES - 1}"}
    try:
        # Any size keeps fsspec from requesting the size first.
        stream = file_system.open(url, "rb", block_size=0, size=1, headers=headers)
    except Exception as error:
        if getattr(error, "status", None) != 416:
            raise
        # 416: the file ends before the range begins, so it is empty or has changed.
        yield _Identity(0, "", None), 0, iter(())
        return
    with stream:
        response = stream.r
        num_bytes, first = _length(response.status, response.headers)
        if first not in (0, start):
            raise DamagedReadError(f"the server sent bytes from offset {first} instead of {start}")
        lines = {name.lower(): ", ".join(response.headers.getall(name)) for name in response.headers}
        yield _of_headers(num_bytes, lines), first, iter(lambda: stream.read(_PIECE_BYTES), b"")


def _length(status: int, headers: Mapping[str, str]) -> tuple[int | None, int]:
    """Return the file's length (None if unknown) and the offset of the response's first byte."""
    if status != 206:
        length = headers.get("Content-Length", "")
        return (int(length) if length.isdigit() else None), 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    if match is None:
        raise DamagedReadError(f"the server answered with the invalid range {headers.get('Content-Range')!r}")
    return int(match[2]), int(match[1])


def _identify(file_system: AbstractFileSystem, path: str) -> _Identity:
    if "s3" in file_system.protocol:
        bucket, key, version = file_system.split_path(path)
        which = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
        headers = file_system.call_s3("head_object", **which)["ResponseMetadata"]["HTTPHeaders"]
        lines = {name.lower(): value for name, value in headers.items()} | {"server": "AmazonS3"}
        return _of_headers(int(lines["content-length"]), lines)
    file_system.invalidate_cache()
    entry: dict[str, Any] = file_system.info(path)
    if entry["type"] != "file":
        raise IsADirectoryError(f"it is a {entry['type']}, not a file")
    tag = entry.get("etag") or file_system.ukey(path)
    return _Identity(entry["size"], str(tag), _hexadecimal(entry.get("md5Hash", "")))


def _of_headers(num_bytes: int | None, headers: Mapping[str, str]) -> _Identity:
    """Read a file's identity from headers with lower-case names; its MD5 only if it is sure to be that of the file."""
    tag, md5 = headers.get("etag", ""), None
    hashes = re.search(r"\bmd5=([A-Za-z0-9+/=]+)", headers.get("x-goog-hash", ""))
    if hashes and headers.get("x-goog-stored-content-encoding", "identity") == "identity":
        md5 = _hexadecimal(hashes[1])
    # S3's ETag is the MD5, except for multipart uploads (the ETag shows it) and files not encrypted with S3's own key.
    is_plain = headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    is_plain &= "x-amz-server-side-encryption-customer-algorithm" not in headers
    if md5 is None and is_plain and headers.get("server") == "AmazonS3" and re.fullmatch(r'"[0-9a-f]{32}"', tag):
        md5 = tag.strip('"')
    return _Identity(num_bytes, tag or headers.get("last-modified", ""), md5)


def _hexadecimal(digest: str) -> str | None:
    with contextlib.suppress(binascii.Error):
        return base64.b64decode(digest, validate=True).hex() or None
    return None
