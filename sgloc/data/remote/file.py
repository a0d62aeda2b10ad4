"""What a server tells of a file with every few megabytes of it, so that they are never put together from two."""

import base64
import binascii
import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fsspec.spec import AbstractFileSystem

from sgloc.data.remote.access import DamagedReadError, read_range

RANGE_BYTES = 8 * 2**20
_PIECE_BYTES = 2**20


@dataclass(frozen=True)
class Identity:
    """What tells a file from its next version.

    Attributes:
        num_bytes: its length; None if the server does not say.
        tag: ETag, or what stands for it.
        md5: of its content, hexadecimal; None if the server does not say.
    """

    num_bytes: int | None
    tag: str
    md5: str | None = field(compare=False)


@dataclass(frozen=True)
class Answer:
    """Some of a file.

    Attributes:
        identity: of the file it is from.
        start: its first byte.
        pieces: the bytes, one piece after another.
    """

    identity: Identity
    start: int
    pieces: Iterator[bytes]


@contextlib.contextmanager
def ask(file_system: AbstractFileSystem, path: str, start: int) -> Iterator[Answer]:
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

    yield Answer(identity, start, pieces())


@contextlib.contextmanager
def _ask_http(file_system: AbstractFileSystem, url: str, start: int) -> Iterator[Answer]:
    """As `ask`. What the answer's headers say holds for its bytes, whatever happens to the file meanwhile."""
    headers = {**file_system.kwargs.get("headers", {}), "Range": f"bytes={start}-{start + RANGE_BYTES - 1}"}
    try:
        # Any size keeps fsspec from asking for it first.
        stream = file_system.open(url, "rb", block_size=0, size=1, headers=headers)
    except Exception as error:
        if getattr(error, "status", None) != 416:
            raise
        # It ends before the range begins: it is empty, or another file than before.
        yield Answer(Identity(0, "", None), 0, iter(()))
        return
    with stream:
        response = stream.r
        num_bytes, first = _length(response.status, response.headers)
        if first not in (0, start):
            raise DamagedReadError(f"bytes from {first} on came where those from {start} on were asked for")
        lines = {name.lower(): ", ".join(response.headers.getall(name)) for name in response.headers}
        identity = Identity(num_bytes, _tag(lines), _told_md5(lines))
        yield Answer(identity, first, iter(lambda: stream.read(_PIECE_BYTES), b""))


def _length(status: int, headers: Mapping[str, str]) -> tuple[int | None, int]:
    """The length of the file that an answer is from, None if it is not known, and the answer's first byte."""
    if status != 206:
        length = headers.get("Content-Length", "")
        return (int(length) if length.isdigit() else None), 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    if match is None:
        raise DamagedReadError(f"the server answers with the range {headers.get('Content-Range')!r}")
    return int(match[2]), int(match[1])


def _identify(file_system: AbstractFileSystem, path: str) -> Identity:
    if "s3" in file_system.protocol:
        bucket, key, version = file_system.split_path(path)
        which = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
        headers = file_system.call_s3("head_object", **which)["ResponseMetadata"]["HTTPHeaders"]
        lines = {name.lower(): value for name, value in headers.items()} | {"server": "AmazonS3"}
        return Identity(int(lines["content-length"]), _tag(lines), _told_md5(lines))
    file_system.invalidate_cache()
    entry: dict[str, Any] = file_system.info(path)
    if entry["type"] != "file":
        raise IsADirectoryError(f"it is a {entry['type']}")
    tag = entry.get("etag") or file_system.ukey(path)
    return Identity(entry["size"], str(tag), _hexadecimal(entry.get("md5Hash", "")))


def _tag(headers: Mapping[str, str]) -> str:
    return headers.get("etag") or headers.get("last-modified", "")


def _told_md5(headers: Mapping[str, str]) -> str | None:
    """The MD5 of a whole file where headers, with names in lower case, are sure to tell it."""
    hashes = re.search(r"\bmd5=([A-Za-z0-9+/=]+)", headers.get("x-goog-hash", ""))
    if hashes and headers.get("x-goog-stored-content-encoding", "identity") == "identity":
        return _hexadecimal(hashes[1])
    # S3's ETag is the MD5 unless the file came in several parts, which shows, or its key is another's than S3's.
    is_plain = headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    is_plain &= "x-amz-server-side-encryption-customer-algorithm" not in headers
    etag = re.fullmatch(r'"([0-9a-f]{32})"', headers.get("etag", ""))
    return etag[1] if etag and is_plain and headers.get("server") == "AmazonS3" else None


def _hexadecimal(digest: str) -> str | None:
    with contextlib.suppress(binascii.Error):
        return base64.b64decode(digest, validate=True).hex() or None
    return None
