"""Which errors of a store may pass, how often and when it is tried again, and what people read of the rest."""

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

# Libraries of stores, which raise errors of their own.
# fmt: off
STORES = frozenset({
    "adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "ftplib", "gcsfs", "google", "http", "paramiko", "requests",
    "s3fs", "smbprotocol", "ssl", "urllib3",
})
# By name, since importing them all costs time and some need packages that are not installed everywhere. Some come
# without an error number, and those of names and of TLS have numbers of their own. An overburdened resolver cannot be
# told from a name that does not exist.
_TRANSIENT_TYPES = frozenset({
    "aiohttp.ClientConnectionError", "aiohttp.ClientPayloadError", "botocore.ConnectionError",
    "botocore.HTTPClientError", "botocore.IncompleteReadError", "botocore.ResponseParserError",
    "builtins.ConnectionError", "builtins.TimeoutError", "http.IncompleteRead", "sgloc.DamagedReadError",
    "socket.gaierror", "ssl.SSLEOFError", "ssl.SSLZeroReturnError", "urllib3.IncompleteRead",
})
_PERMANENT_TYPES = frozenset({
    "aiohttp.ClientConnectorCertificateError", "aiohttp.ClientSSLError", "botocore.SSLError",
})
# s3fs tells an answer that it does not know as EIO, InternalError as EREMOTEIO and SlowDown as EBUSY.
_TRANSIENT_ERRNOS = frozenset({
    errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EIO,
    errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.EPIPE, getattr(errno, "EREMOTEIO", errno.EIO),
    errno.ESTALE, errno.ETIMEDOUT,
})
# fmt: on
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


# Of checkpoints and results: what fails for longer than seconds is done again at the next save, or by the user.
SHORT = Retries(num_attempts=3, first_delay=0.5, longest_delay=5.0, timeout=30.0)


class DamagedReadError(OSError):
    """What came is not what was to come: too short, or of another checksum. It may pass."""


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
    if names & _TRANSIENT_TYPES:
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


def retry(
    action: Callable[[], Value],
    what: str,
    retries: Retries | None = None,
    *,
    verb: str = "read",
    counted: Callable[[], None] = lambda: None,
) -> Value:
    """Do something with a store, and again after an error that may pass. Each retry is logged.

    Args:
        action: what to do.
        what: the file or folder, as a sentence's subject.
        retries: how often, and how long to wait; None is `SHORT`.
        verb: what cannot be done while it fails: "read" or "written".
        counted: called before every retry.

    Raises:
        Exception: what the action raises that is not transient, or raises at its last attempt.
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
    """Turn what goes wrong with reading a file into one sentence; only reading belongs inside.

    Args:
        what: the file, as a sentence's subject.
        retries: how often it was tried, where it was.

    Raises:
        DataError: in place of whatever is raised inside; a DataError passes unchanged. It says what to do.
    """
    try:
        yield
    except DataError:
        raise
    # Each file system behind fsspec has errors of its own, and zipfile raises almost anything for a damaged archive.
    except Exception as error:
        raise _unreadable(error, what, retries) from error


def retry_reading(action: Callable[[], Value], what: str, retries: Retries) -> Value:
    """Read something as `retry` does; what finally fails is a DataError, as `reading` raises it."""
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
    advice = "check its permissions, or the credentials" if is_forbidden else "check the path, or fetch it again"
    return DataError(f"{what} cannot be read ({describe(error)}); {advice}")


@contextlib.contextmanager
def writing(location: str, what: str = "files") -> Iterator[None]:
    """Turn what a file system raises inside into one sentence.

    Args:
        location: the folder that is written to.
        what: what is written.

    Raises:
        DataError: in place of an error of the operating system or of a store's library.
    """
    try:
        yield
    except Exception as error:
        if not is_of_store(error):
            raise
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "make room, or give another folder" if is_full else "give a folder that can be written"
        raise DataError(f"cannot write {what} to {location} ({describe(error)}); {advice}") from error


def is_of_store(error: BaseException) -> bool:
    """Whether an error comes from the operating system or from a store's library."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in STORES


def describe(error: BaseException) -> str:
    """An error in one line: an HTTP status, what an operating system says, or what a store's library says."""
    status, message = _status(error), getattr(error, "message", "")
    if status is not None:
        return f"HTTP status {status} {message}".rstrip()
    text = " ".join(str(error).split())
    is_sentence = isinstance(error, SglocError | DamagedReadError)
    if is_sentence or (isinstance(error, OSError) and error.errno is not None):
        return text
    # fsspec gives a time-out no words.
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
