"""Transient store errors: how to recognise and retry them, and how to report the others."""

import contextlib
import errno
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from sgloc.errors import DataError, SglocError

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

# Store client libraries, which raise their own error types.
# fmt: off
STORES = frozenset({
    "adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "ftplib", "gcsfs", "google", "http", "paramiko", "requests",
    "s3fs", "smbprotocol", "ssl", "urllib3",
})
# Listed by name, because importing all the types takes time and some need packages that may not be installed. Some
# have no errno, and those of name resolution and TLS have their own numbers. A failure of an overloaded resolver looks
# the same as a host name that does not exist.
_TRANSIENT_TYPES = frozenset({
    "aiohttp.ClientConnectionError", "aiohttp.ClientPayloadError", "botocore.ConnectionError",
    "botocore.HTTPClientError", "botocore.IncompleteReadError", "botocore.ResponseParserError",
    "builtins.ConnectionError", "builtins.TimeoutError", "http.IncompleteRead", "sgloc.DamagedReadError",
    "socket.gaierror", "ssl.SSLEOFError", "ssl.SSLZeroReturnError", "urllib3.IncompleteRead",
})
_PERMANENT_TYPES = frozenset({
    "aiohttp.ClientConnectorCertificateError", "aiohttp.ClientSSLError", "botocore.SSLError",
})
# s3fs maps unknown responses to EIO, InternalError to EREMOTEIO and SlowDown to EBUSY.
_TRANSIENT_ERRNOS = frozenset({
    errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EIO,
    errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.EPIPE, getattr(errno, "EREMOTEIO", errno.EIO),
    errno.ESTALE, errno.ETIMEDOUT,
})
# fmt: on
_TRANSIENT_STATUSES = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Retries:
    """Retry policy: exponential backoff with jitter.

    Attributes:
        num_attempts: number of attempts, at least 1.
        first_delay: seconds before the second attempt; doubles with each attempt.
        longest_delay: upper limit of the delay, in seconds.
        timeout: seconds before a silent connection is given up.
    """

    num_attempts: int = 6
    first_delay: float = 0.5
    longest_delay: float = 30.0
    timeout: float = 60.0

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after an attempt, counted from 1: a random 50 to 100 % of the doubled delay, so
        that many readers of one server do not retry at the same time."""
        # Cap the exponent: far fewer doublings suffice, and a thousand would overflow a float.
        longest = min(self.longest_delay, self.first_delay * 2.0 ** min(attempt - 1, 64))
        return longest * random.SystemRandom().uniform(0.5, 1.0)


# For checkpoints and results: a failure that lasts longer is retried at the next save, or by the user.
SHORT = Retries(num_attempts=3, first_delay=0.5, longest_delay=5.0, timeout=30.0)


class DamagedReadError(OSError):
    """A transient read error: the data are too short, or have the wrong checksum."""


def is_transient(error: BaseException) -> bool:
    """Return whether a file system error is transient: HTTP 5xx, 408, 425 or 429, a connection that is refused, reset
    or silent, a short or damaged response. Missing and forbidden files are permanent errors."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    # fsspec raises FileNotFoundError from any error of the request, and s3fs wraps botocore's errors in its own, so the
    # innermost cause is the most reliable.
    verdicts = [verdict for verdict in map(_verdict, reversed(chain)) if verdict is not None]
    return bool(verdicts) and verdicts[0]


def _verdict(error: BaseException) -> bool | None:
    """Return whether an error is transient, regardless of its cause; None if the error alone does not tell."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if names & _PERMANENT_TYPES:
        return False
    status = _status(error)
    if status is not None:
        return status in _TRANSIENT_STATUSES or status >= 500
    if names & _TRANSIENT_TYPES:
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _TRANSIENT_ERRNOS
    return False if isinstance(error, FileNotFoundError | PermissionError) else None


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an aiohttp, gcsfs or botocore error; None if it has none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        # aiohttp's parse errors have a `code` too, but the server did not send it.
        name = "code" if type(error).__module__.startswith("gcsfs") else "status"
        status = getattr(error, name, None)
    return status if isinstance(status, int) and 100 <= status < 600 else None


def retry(
    action: Callable[[], Value],
    what: str,
    retries: Retries | None = None,
    *,
    verb: str = "read",
    counted: Callable[[], None] = lambda: None,
) -> Value:
    """Call `action`, retrying after transient errors. Each retry is logged.

    Args:
        action: the function to call.
        what: the file or folder, as the subject of the log message.
        retries: number of attempts and delays between them; None means `SHORT`.
        verb: participle for the log message, such as "read" or "written".
        counted: called before every retry.

    Returns:
        The result of `action`.

    Raises:
        Exception: a permanent error of `action`, or the error of its last attempt.
    """
    retries = retries or SHORT
    for attempt in range(2, retries.num_attempts + 1):
        try:
            return action()
        except Exception as error:
            if isinstance(error, SglocError) or not is_transient(error):
                raise
            counted()
            delay = retries.delay(attempt - 1)
            logger.warning(
                "%s cannot be %s (%s); attempt %d of %d follows in %.1f s",
                *(what, verb, describe(error), attempt, retries.num_attempts, delay),
            )
        time.sleep(delay)
    return action()


@contextlib.contextmanager
def reading(what: str, retries: Retries | None = None) -> Iterator[None]:
    """Turn any error of reading a file into a DataError; use it around reading code only.

    Args:
        what: the file, as the subject of the message.
        retries: the retry policy used inside, to report the number of attempts.

    Raises:
        DataError: for any exception raised inside; says what to do. A DataError passes unchanged.
    """
    try:
        yield
    except DataError:
        raise
    # Each fsspec file system has its own errors, and zipfile raises almost anything for a damaged archive.
    except Exception as error:
        raise _unreadable(error, what, retries) from error


def retry_reading(action: Callable[[], Value], what: str, retries: Retries) -> Value:
    """Call `action` with retries, as `retry`; turn the final error into a DataError, as `reading`."""
    with reading(what, retries):
        return retry(action, what, retries)


def _unreadable(error: Exception, what: str, retries: Retries | None) -> DataError:
    if is_transient(error):
        times = f" after {retries.num_attempts} attempts" if retries and retries.num_attempts > 1 else ""
        return DataError(
            f"{what} cannot be read{times} ({describe(error)}); check the network and the server, then start again"
        )
    if isinstance(error, FileNotFoundError):
        return DataError(f"{what} does not exist; check the path")
    is_forbidden = isinstance(error, PermissionError) or _status(error) in (401, 403)
    advice = "check its permissions or the credentials" if is_forbidden else "check the path, or fetch it again"
    return DataError(f"{what} cannot be read ({describe(error)}); {advice}")


@contextlib.contextmanager
def writing(location: str, what: str = "files") -> Iterator[None]:
    """Turn file system errors raised inside the context into a DataError.

    Args:
        location: the destination folder, for the message.
        what: what is being written, for the message.

    Raises:
        DataError: for any error of the operating system or of a store's library.
    """
    try:
        yield
    except Exception as error:
        if not is_of_store(error):
            raise
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some space, or choose another folder" if is_full else "choose a writable folder"
        raise DataError(f"cannot write {what} to {location} ({describe(error)}); {advice}") from error


def is_of_store(error: BaseException) -> bool:
    """Return whether an error comes from the operating system or from a store's library."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in STORES


def describe(error: BaseException) -> str:
    """Describe an error in one line: the HTTP status, or the message of the operating system or store library."""
    status, message = _status(error), getattr(error, "message", "")
    if status is not None:
        return f"HTTP status {status} {message}".rstrip()
    text = " ".join(str(error).split())
    is_sentence = isinstance(error, SglocError | DamagedReadError)
    if is_sentence or (isinstance(error, OSError) and error.errno is not None):
        return text
    # fsspec's time-outs have an empty message.
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
