"""The file systems behind paths and URLs, opened with time-outs, and exact reads from them."""

import contextlib
import os
from typing import Any, cast

import fsspec.config
import fsspec.core
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from fsspec.utils import get_protocol

from sgloc.errors import DataError
from sgloc.storage.retry import DamagedReadError, Retries


def open_file_system(location: str, timeout: float = Retries.timeout) -> tuple[AbstractFileSystem, str]:
    """Find the file system of a path or URL.

    HTTP and S3 get time-outs; both leave all retrying to retry.py. HTTP is asked for the bytes as they are stored, and
    heeds the environment's proxies. What the user's fsspec configuration says otherwise holds.

    Args:
        location: a local path or any fsspec URL.
        timeout: seconds that a connection may give nothing.

    Returns:
        The file system, safe to use from several threads, and the path in it.

    Raises:
        DataError: if the URL's protocol is unknown or needs a package that is not installed.
    """
    protocol = get_protocol(location)
    try:
        file_system, path = fsspec.core.url_to_fs(location, **_options(protocol, timeout))
    except ImportError as error:
        raise DataError(f"{location} needs a package that is not installed ({error})") from error
    except ValueError as error:
        raise DataError(f"{location} cannot be opened ({error}); check the URL") from error
    if protocol in ("s3", "s3a"):
        # Its own retries would multiply with ours, and each may wait for a time-out.
        file_system.retries = 1
    return file_system, path


def _options(protocol: str, timeout: float) -> dict[str, Any]:
    configured = fsspec.config.conf.get(protocol, {})
    if protocol in ("http", "https"):
        import aiohttp

        clients = {
            "timeout": aiohttp.ClientTimeout(total=None, connect=None, sock_connect=timeout, sock_read=timeout),
            "auto_decompress": False,
            "trust_env": True,
        }
        return {
            "client_kwargs": clients | configured.get("client_kwargs", {}),
            "headers": {"Accept-Encoding": "identity"} | configured.get("headers", {}),
        }
    if protocol in ("s3", "s3a"):
        patience = {"connect_timeout": timeout, "read_timeout": timeout, "retries": {"total_max_attempts": 1}}
        return {"config_kwargs": patience | configured.get("config_kwargs", {})}
    return {}


def is_local(location: str) -> bool:
    """Whether a path or URL names files of this machine.

    Raises:
        DataError: if its protocol is unknown or needs a package that is not installed.
    """
    return isinstance(open_file_system(location)[0], LocalFileSystem)


def local_path(location: str) -> str:
    """The absolute path that a path or a file:// URL stands for."""
    return str(open_file_system(location)[1])


def open_file(location: str) -> Any:
    """Open a file to read its bytes, as a context.

    Raises:
        DataError: as `open_file_system`.
        OSError: if it cannot be opened.
    """
    file_system, path = open_file_system(location)
    return file_system.open(path, "rb")


def write_file(location: str, content: bytes) -> None:
    """Write a file, or replace it; the folder it is in is made.

    Raises:
        DataError: as `open_file_system`.
        OSError: if it cannot be written.
    """
    file_system, path = open_file_system(location)
    with contextlib.suppress(PermissionError):
        file_system.makedirs(file_system._parent(path), exist_ok=True)
    file_system.pipe_file(path, content)


def read_range(
    file_system: AbstractFileSystem, path: str, start: int, stop: int, *, file_size: int | None = None
) -> bytes:
    """Read some of a file's bytes.

    Args:
        file_system: where it is; one that was opened before a fork is opened again.
        path: in it.
        start: first byte.
        stop: one after the last, at most the file's length.
        file_size: bytes of the whole file where known.

    Returns:
        Exactly stop - start bytes, also from a server that ignores ranges and sends the file.

    Raises:
        DamagedReadError: if another number of bytes came.
        Exception: what the file system raises; see `is_transient`.
    """
    content = cast(bytes, of_this_process(file_system).cat_file(path, start=start, end=stop))
    if len(content) == stop - start:
        return content
    # No answer to a range is longer than the range.
    whole = len(content) == file_size if file_size is not None else len(content) >= stop
    if whole and len(content) > stop - start:
        return content[start:stop]
    raise DamagedReadError(f"{len(content)} bytes of {path} came where {stop - start} were asked for")


def of_this_process(file_system: AbstractFileSystem) -> AbstractFileSystem:
    """A file system that works here: one with a thread of its own has lost it by a fork, and would wait for ever."""
    if not isinstance(file_system, AsyncFileSystem) or file_system._pid == os.getpid():
        return file_system
    # fsspec keeps one a process.
    opened = type(file_system)(*file_system.storage_args, **file_system.storage_options)
    if hasattr(file_system, "retries"):
        opened.retries = file_system.retries
    return opened
