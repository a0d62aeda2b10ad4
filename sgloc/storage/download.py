"""Brings a remote file to a local path: what was interrupted goes on, and what came is what was to come."""

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

# A server tells with each of them what file it is from, so that a file is never put together from two versions.
RANGE_BYTES = 8 * 2**20
_PIECE_BYTES = 2**20
# Enough to tell a file's form by.
_HEAD_BYTES = 64


def download(
    url: str, path: str, *, retries: Retries | None = None, check: Callable[[bytes], None] = lambda _: None
) -> None:
    """Bring a remote file to a local path, which it replaces once it is whole.

    Until then it is ``path + ".part"``, with ``path + ".part.json"`` telling which file it is a part of: a download
    that was killed goes on from there. It starts over when the server's length or ETag has changed since, and where the
    server knows no ranges. The length is checked, the content by its MD5 where a server of S3 or Google tells that.

    Args:
        url: a local path or any fsspec URL.
        path: local; its folder exists.
        retries: how often each range is tried, and the file started over.
        check: given the file's first bytes, 64 of them if there are as many, raises DataError if they are wrong.

    Raises:
        DataError: if the file is missing, forbidden, stays unreadable or damaged, or `check` refuses it; if the path
            cannot be written, or another process is downloading to it. What came is kept unless it is wrong, so that it
            can go on.
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
                raise DataError(f"{url} was started over {part.num_starts_over} times: {part.trouble}; try again later")
        with writing(path, "the download"):
            Path(f"{path}.part").replace(path)
            part.sidecar.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Identity:
    """What tells a file from its next version.

    Attributes:
        num_bytes: its length; None if the server does not say.
        tag: ETag, or what stands for it.
        md5: of its content, hexadecimal; None if the server does not say.
    """

    num_bytes: int | None
    tag: str
    md5: str | None = field(compare=False)


_Answer = tuple[_Identity, int, Iterator[bytes]]
"""Some of a file: which it is, the first byte that came, and the bytes, one piece after another."""


class _Part:
    """The local file as far as it has come.

    Attributes:
        position: bytes of it that are there.
        sidecar: tells which file it is a part of.
        num_starts_over: how often it was begun again.
        trouble: why, the last time.
    """

    def __init__(self, url: str, path: str, file: FileIO, check: Callable[[bytes], None]) -> None:
        self.url, self.path, self.file, self.check = url, path, file, check
        self.position = self.num_starts_over = 0
        self.trouble = ""
        self.sidecar = Path(f"{path}.part.json")
        self._identity = self._recall()
        if self._identity is not None and self._identity.num_bytes:
            # At least one range is asked for, which shows whether the file is still the same. All before the last that
            # is there were synced, so that they are sound even if the machine stopped.
            length = min(os.fstat(file.fileno()).st_size, self._identity.num_bytes - 1)
            self.position = length - length % RANGE_BYTES

    def take(self, identity: _Identity, start: int, pieces: Iterator[bytes]) -> None:
        """Write an answer down.

        Raises:
            DamagedReadError: if it is from another file than what is there, or is nothing.
            DataError: if it cannot be written.
        """
        if self._identity is None:
            with writing(self.path, "the download"):
                self.sidecar.write_text(json.dumps({"url": mask(self.url), **asdict(identity)}))
            self._identity = identity
        elif self._identity != identity:
            self._start_over("it has changed on its server since its first bytes came")
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
            raise DamagedReadError("its server sends nothing")

    def is_complete(self) -> bool:
        """Whether all of it is there.

        Raises:
            DataError: if `check` refuses it.
            DamagedReadError: if it is damaged.
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
                self._start_over("it is damaged: its MD5 is another than its server tells")
        return is_complete

    def _start_over(self, trouble: str) -> None:
        self.num_starts_over, self.trouble = self.num_starts_over + 1, trouble
        self.position, self._identity = 0, None
        with writing(self.path, "the download"):
            self.sidecar.unlink(missing_ok=True)
            self.file.truncate(0)
        raise DamagedReadError(f"{trouble}, and is downloaded from the start")

    def _recall(self) -> _Identity | None:
        """What the file was a part of when it was left; None if nobody knows, as when the machine stopped meanwhile."""
        try:
            fields = json.loads(self.sidecar.read_text())
            return _Identity(**fields) if fields.pop("url") == mask(self.url) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


@contextlib.contextmanager
def _open_part(path: str) -> Iterator[FileIO]:
    """Open the part of a file for this process alone."""
    with writing(path, "the download"):
        file = FileIO(os.open(f"{path}.part", os.O_RDWR | os.O_CREAT, 0o666), "r+")
    with file:
        try:
            lock(file)
        except BlockingIOError as error:
            raise DataError(f"another process is downloading to {path}; wait for it, or stop it") from error
        part = Path(f"{path}.part")
        # Between opening and locking it may have been given its name.
        if not (part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat())):
            raise DataError(f"another process has just downloaded to {path}; start again")
        yield file


@contextlib.contextmanager
def _ask(file_system: AbstractFileSystem, path: str, start: int) -> Iterator[_Answer]:
    """Ask for RANGE_BYTES of a file from a byte on; more may come, or the file from its first byte."""
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
                raise DamagedReadError("it changed while it was read")
            yield content

    yield identity, start, pieces()


@contextlib.contextmanager
def _ask_http(file_system: AbstractFileSystem, url: str, start: int) -> Iterator[_Answer]:
    """As `_ask`. What the answer's headers say holds for its bytes, whatever happens to the file meanwhile."""
    headers = {**file_system.kwargs.get("headers", {}), "Range": f"bytes={start}-{start + RANGE_BYTES - 1}"}
    try:
        # Any size keeps fsspec from asking for it first.
        stream = file_system.open(url, "rb", block_size=0, size=1, headers=headers)
    except Exception as error:
        if getattr(error, "status", None) != 416:
            raise
        # It ends before the range begins: it is empty, or another file than before.
        yield _Identity(0, "", None), 0, iter(())
        return
    with stream:
        response = stream.r
        num_bytes, first = _length(response.status, response.headers)
        if first not in (0, start):
            raise DamagedReadError(f"bytes from {first} on came where those from {start} on were asked for")
        lines = {name.lower(): ", ".join(response.headers.getall(name)) for name in response.headers}
        yield _of_headers(num_bytes, lines), first, iter(lambda: stream.read(_PIECE_BYTES), b"")


def _length(status: int, headers: Mapping[str, str]) -> tuple[int | None, int]:
    """The length of the file that an answer is from, None if it is not known, and the answer's first byte."""
    if status != 206:
        length = headers.get("Content-Length", "")
        return (int(length) if length.isdigit() else None), 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    if match is None:
        raise DamagedReadError(f"the server answers with the range {headers.get('Content-Range')!r}")
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
        raise IsADirectoryError(f"it is a {entry['type']}")
    tag = entry.get("etag") or file_system.ukey(path)
    return _Identity(entry["size"], str(tag), _hexadecimal(entry.get("md5Hash", "")))


def _of_headers(num_bytes: int | None, headers: Mapping[str, str]) -> _Identity:
    """What headers, with names in lower case, say of a file; its MD5 only where it is sure to be that of the whole."""
    tag, md5 = headers.get("etag", ""), None
    hashes = re.search(r"\bmd5=([A-Za-z0-9+/=]+)", headers.get("x-goog-hash", ""))
    if hashes and headers.get("x-goog-stored-content-encoding", "identity") == "identity":
        md5 = _hexadecimal(hashes[1])
    # S3's ETag is the MD5 unless the file came in several parts, which shows, or its key is another's than S3's.
    is_plain = headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    is_plain &= "x-amz-server-side-encryption-customer-algorithm" not in headers
    if md5 is None and is_plain and headers.get("server") == "AmazonS3" and re.fullmatch(r'"[0-9a-f]{32}"', tag):
        md5 = tag.strip('"')
    return _Identity(num_bytes, tag or headers.get("last-modified", ""), md5)


def _hexadecimal(digest: str) -> str | None:
    with contextlib.suppress(binascii.Error):
        return base64.b64decode(digest, validate=True).hex() or None
    return None
