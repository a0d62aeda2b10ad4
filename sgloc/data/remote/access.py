"""Reading from any file system behind fsspec so that what passes is waited out and what does not is told at once."""

import errno
import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import fsspec.config
import fsspec.core
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem
from fsspec.utils import get_protocol

from sgloc.errors import DataError

Value = TypeVar("Value")

# By name, since importing them all costs time and some need packages that are not installed everywhere.
_TRANSIENT_TYPES = frozenset(
    {
        "aiohttp.ClientConnectionError",
        "aiohttp.ClientPayloadError",
        "botocore.ConnectionError",
        "botocore.HTTPClientError",
        "botocore.IncompleteReadError",
        "botocore.ResponseParserError",
        "http.IncompleteRead",
        "urllib3.IncompleteRead",
    }
)
_PERMANENT_TYPES = frozenset(
    {
        "aiohttp.ClientConnectorCertificateError",
        "aiohttp.ClientSSLError",
        "botocore.SSLError",
    }
)
# s3fs tells an answer that it does not know as EIO, InternalError as EREMOTEIO and SlowDown as EBUSY.
_TRANSIENT_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.EIO,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        getattr(errno, "EREMOTEIO", errno.EIO),
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
_TRANSIENT_STATUSES = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Retries:
    """How patiently something is read.

    Attributes:
        num_attempts: how often it is tried, at least once.
        first_delay: seconds before the second attempt; doubled from attempt to attempt, with jitter.
        longest_delay: seconds that no delay exceeds.
        timeout: seconds that a connection may give nothing.
    """

    num_attempts: int = 6
    first_delay: float = 0.5
    longest_delay: float = 30.0
    timeout: float = 60.0

    def delay(self, attempt: int) -> float:
        """Seconds to wait after an attempt, counted from 1: between half of what the doubling gives and all of it, so
        that many readers of one server do not come back together."""
        # Far fewer doublings suffice, and a float has no room for a thousand.
        longest = min(self.longest_delay, self.first_delay * 2.0 ** min(attempt - 1, 64))
        return longest * random.SystemRandom().uniform(0.5, 1.0)


class DamagedReadError(OSError):
    """What came is not what was to come: too short, or of another checksum. It may pass."""


def open_file_system(location: str, timeout: float = Retries.timeout) -> tuple[AbstractFileSystem, str]:
    """Find the file system of a path or URL.

    HTTP and S3 get time-outs; both leave all retrying to `retrying`. HTTP is asked for the bytes as they are stored,
    and heeds the environment's proxies. What the user's fsspec configuration says otherwise holds.

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


def is_transient(error: BaseException) -> bool:
    """Whether an error of a file system may pass: a server's 5xx, 408, 425 or 429, a connection that is refused, reset
    or silent, a short or damaged answer. What is missing or forbidden does not."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    # fsspec raises FileNotFoundError from whatever kept it from asking, and s3fs errors of its own from botocore's: the
    # cause nearest to the wire knows best.
    verdicts = [verdict for verdict in map(_verdict, reversed(chain)) if verdict is not None]
    return bool(verdicts) and verdicts[0]


def _verdict(error: BaseException) -> bool | None:
    """Whether an error by itself is transient; None if it does not say."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if names & _PERMANENT_TYPES:
        return False
    status = _status(error)
    if status is not None:
        return status in _TRANSIENT_STATUSES or status >= 500
    # Some come without an error number, and those of names and of TLS have numbers of their own. An overburdened
    # resolver cannot be told from a name that does not exist.
    passing = (
        DamagedReadError,
        TimeoutError,
        ConnectionError,
        socket.gaierror,
        ssl.SSLEOFError,
        ssl.SSLZeroReturnError,
    )
    if isinstance(error, passing) or names & _TRANSIENT_TYPES:
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _TRANSIENT_ERRNOS
    return False if isinstance(error, FileNotFoundError | PermissionError) else None


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error of aiohttp, gcsfs or botocore."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        # What aiohttp raises for an answer that it cannot parse has a code, too, which the server did not send.
        name = "code" if type(error).__module__.startswith("gcsfs") else "status"
        status = getattr(error, name, None)
    return status if isinstance(status, int) and 100 <= status < 600 else None


def retrying(action: Callable[[], Value], what: str, retries: Retries, told: Callable[[str], None]) -> Value:
    """Do something until it succeeds, fails for good, or has been tried often enough.

    Args:
        action: what to do; it is called again after a transient error.
        what: what is read, as a sentence's subject.
        retries: how often, and how long to wait.
        told: is given a sentence before every wait.

    Raises:
        DataError: if an error is not transient, or the last attempt's was; it names what is read, the number of
            attempts, and what to do. A DataError of the action passes unchanged.
    """
    for attempt in range(1, retries.num_attempts):
        try:
            return action()
        except DataError:
            raise
        except Exception as error:
            if not is_transient(error):
                raise _final(error, what, attempt) from error
            delay = retries.delay(attempt)
            told(
                f"{what} cannot be read ({_describe(error)}); attempt {attempt + 1} of {retries.num_attempts} "
                f"follows in {delay:.1f} s"
            )
        time.sleep(delay)
    try:
        return action()
    except DataError:
        raise
    except Exception as error:
        raise _final(error, what, retries.num_attempts) from error


def _final(error: Exception, what: str, attempt: int) -> DataError:
    times = f" after {attempt} attempts" if attempt > 1 else ""
    if is_transient(error):
        advice = "check the network and the server, then start again"
    elif isinstance(error, FileNotFoundError):
        return DataError(f"{what} does not exist{times}; check the path")
    elif isinstance(error, PermissionError) or _status(error) in (401, 403):
        advice = "check its permissions, or the credentials"
    else:
        advice = "check the path and the server"
    return DataError(f"{what} cannot be read{times} ({_describe(error)}); {advice}")


def _describe(error: BaseException) -> str:
    status, message = _status(error), getattr(error, "message", "")
    if status is not None:
        return f"HTTP status {status} {message}".rstrip()
    text = " ".join(str(error).split())
    if isinstance(error, DamagedReadError):
        return text
    # fsspec gives a time-out no words.
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


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
