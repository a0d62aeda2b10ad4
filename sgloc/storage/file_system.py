"""Opening paths and URLs with time-outs, and exact range reads."""

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
    """Open the file system of a path or URL.

    HTTP and S3 get time-outs, and leave all retries to retry.py. HTTP requests ask for the bytes as stored (no content
    encoding) and respect the proxy variables of the environment. The user's fsspec configuration takes precedence.

    Args:
        location: a local path or any fsspec URL.
        timeout: seconds before a silent connection is given up.

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
        # s3fs's own retries would multiply with ours, and each may wait for a time-out.
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
    """Return whether a path or URL is on this machine's file system.

    Raises:
        DataError: if its protocol is unknown or needs a package that is not installed.
    """
    return isinstance(open_file_system(location)[0], LocalFileSystem)


def local_path(location: str) -> str:
    """Return the absolute path of a local path or file:// URL."""
    return str(open_file_system(location)[1])


def open_file(location: str) -> Any:
    """Open a file for reading bytes; use the result as a context manager.

    Raises:
        DataError: as `open_file_system`.
        OSError: if the file cannot be opened.
    """
    file_system, path = open_file_system(location)
    return file_system.open(path, "rb")


def write_file(location: str, content: bytes) -> None:
    """Write or replace a file, creating its folder if needed.

    Raises:
        DataError: as `open_file_system`.
        OSError: if the file cannot be written.
    """
    file_system, path = open_file_system(location)
    with contextlib.suppress(PermissionError):
        file_system.makedirs(file_system._parent(path), exist_ok=True)
    file_system.pipe_file(path, content)


def read_range(
    file_system: AbstractFileSystem, path: str, start: int, stop: int, *, file_size: int | None = None
) -> bytes:
    """Read a byte range of a file.

    Args:
        file_system: the file system; it is reopened if it was opened before a fork.
        path: path in the file system.
        start: offset of the first byte.
        stop: offset after the last byte, at most the file's length.
        file_size: length of the whole file in bytes, if known.

    Returns:
        Exactly stop - start bytes, even if the server ignores ranges and sends the whole file.

    Raises:
        DamagedReadError: if the number of bytes received is wrong.
        Exception: any error of the file system; see `is_transient`.
    """
    content = cast(bytes, of_this_process(file_system).cat_file(path, start=start, end=stop))
    if len(content) == stop - start:
        return content
    # A response longer than the range must be the whole file.
    whole = len(content) == file_size if file_size is not None else len(content) >= stop
    if whole and len(content) > stop - start:
        return content[start:stop]
    raise DamagedReadError(f"received {len(content)} bytes of {path} instead of {stop - start}")


def of_this_process(file_system: AbstractFileSystem) -> AbstractFileSystem:
    """Return a file system usable in this process: after a fork, an async one has lost its thread and would hang."""
    if not isinstance(file_system, AsyncFileSystem) or file_system._pid == os.getpid():
        return file_system
    # fsspec caches instances per process, so this opens a new one only once.
    opened = type(file_system)(*file_system.storage_args, **file_system.storage_options)
    if hasattr(file_system, "retries"):
        opened.retries = file_system.retries
    return opened
