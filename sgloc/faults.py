"""Classification of exceptions as user errors, transient errors or bugs (DESIGN contract 10)."""

import contextlib
import errno
import os
import sys
import traceback
from pathlib import Path

from sgloc.errors import SglocError

PASSING, MISTAKE, FAULT, INTERRUPTED = 1, 2, 3, 130

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("sgloc", "launch", "benchmarks")
# Errors of store libraries that the user has to fix.
_STORE_MISTAKES = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError", "SSLError"}
)
# Exhausted resources: transient, because they may be freed, but not worth a retry within seconds.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
# Errors that a wrong path causes. A path does not explain any other error.
_WRONG_PATH = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EROFS, errno.EXDEV})
_WRONG_PATH_TYPES = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
# Path of a file in which a program that must not be restarted records its exit code: torchrun restarts ranks whatever
# their exit codes, and srun reports that of a node that it ended itself.
VERDICT_VARIABLE = "SGLOC_VERDICT"
# torch errors, by name: importing torch takes seconds, and versions define them in different modules.
_OF_COLLECTIVES = frozenset({"DistError", "DistBackendError", "DistNetworkError", "DistStoreError", "RendezvousError"})
_DEVICE_PHRASES = ("CUDA error", "CUDA driver error", "cuDNN error", "CUBLAS_STATUS", "NCCL")
# Device errors that the program caused, and would cause again.
_DEVICE_FAULTS = ("device-side assert", "invalid argument", "invalid configuration", "illegal memory access")
_LONGEST = 300
# Message and exit code; None if the exception is of another kind.
_Told = tuple[str, int] | None


def exit_code_of(error: SglocError) -> int:
    """Return the exit code for an error: 1 if its cause is transient, otherwise its own."""
    if error.exit_code == MISTAKE and error.__cause__ is not None and may_pass(error.__cause__):
        return PASSING
    return error.exit_code


def may_pass(error: BaseException) -> bool:
    """Return whether the cause of an exception is transient: a failing store or network, a full disk, lost ranks."""
    from sgloc.storage import DamagedReadError, is_transient

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DamagedReadError):
            return False
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno in _FULL):
            return True
        cause = cause.__cause__
    # BrokenProcessPool: the kernel killed a pool's worker, usually because memory ran out.
    return is_transient(error) or bool(_names(error) & (_OF_COLLECTIVES | {"BrokenProcessPool"}))


def as_told(error: Exception) -> SglocError:
    """Turn any exception into an error with a one-sentence message and an exit code.

    Args:
        error: the exception.

    Returns:
        The error itself if it is an `SglocError`; otherwise one that classifies the exception, and has it as its cause.
    """
    if isinstance(error, SglocError):
        return error
    kinds = (_of_memory, _of_ranks_and_devices, _of_names, _of_paths, _of_stores)
    sentence, code = next(filter(None, (kind(error) for kind in kinds)), None) or _fault(error)
    told = SglocError(sentence)
    told.exit_code, told.__cause__ = code, error
    return told


def trace_of(error: BaseException) -> str:
    """Format the traceback of an exception and its causes, including those from other processes."""
    before = getattr(error, "trace", "")
    here = "".join(traceback.format_exception(error))
    return f"{before}\n{here}" if before else here


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _line(error: BaseException) -> str:
    """Return the first line of an error's message, without the stack that some libraries append, and shortened."""
    text = next((line for line in str(error).splitlines() if line.strip()), "").strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _of_memory(error: Exception) -> _Told:
    if "OutOfMemoryError" in _names(error):
        advice = "use a smaller batch or, for training, a larger train.accumulation"
        return f"out of device memory ({_line(error)}); {advice}", PASSING
    if isinstance(error, MemoryError):
        return f"out of memory ({_line(error)}); free some memory, or process less at a time", PASSING
    return None


def _of_ranks_and_devices(error: Exception) -> _Told:
    if not isinstance(error, RuntimeError):
        return None
    dist, text = sys.modules.get("sgloc.dist"), str(error)
    if dist is not None and dist.lost_rank(error):
        return f"another process is gone or does not answer ({_line(error)}); start again", PASSING
    if _names(error) & _OF_COLLECTIVES:
        return f"the processes lost contact with each other ({_line(error)}); start again", PASSING
    is_of_device = "AcceleratorError" in _names(error) or any(phrase in text for phrase in _DEVICE_PHRASES)
    if is_of_device and not any(phrase in text for phrase in _DEVICE_FAULTS):
        advice = "start again, and run `sgloc doctor` if it recurs"
        return f"the device failed ({_line(error)}); {advice}", PASSING
    return None


def _of_names(error: Exception) -> _Told:
    encoding = sys.getfilesystemencoding()
    if not isinstance(error, UnicodeEncodeError) or encoding == "utf-8" or error.encoding not in encoding:
        return None
    return f"file names must be {encoding} in this locale ({_line(error)}); set LC_ALL=C.UTF-8", MISTAKE


def _of_paths(error: Exception) -> _Told:
    """Classify errors of the operating system about a path, disk or network, except those that only a bug can cause."""
    from sgloc.storage import STORES

    if not isinstance(error, OSError) or type(error).__module__.partition(".")[0] in STORES:
        return None
    said = " ".join(str(error).split())
    if may_pass(error):
        advice = "free some space" if error.errno in _FULL else "check the network and the server, or the disk"
        return f"{said}; {advice}, then start again", PASSING
    name = error.filename if isinstance(error.filename, str) else ""
    is_of_path = isinstance(error, _WRONG_PATH_TYPES) or error.errno in _WRONG_PATH
    # Local file systems set both errno and file name, stores neither. A path inside sgloc itself points to a bug.
    if not is_of_path or bool(name) != (error.errno is not None) or Path(name).is_relative_to(_ROOT / "sgloc"):
        return None
    return f"{said}; check the path and its permissions", MISTAKE


def _of_stores(error: Exception) -> _Told:
    from sgloc.storage import STORES, is_transient

    if type(error).__module__.partition(".")[0] not in STORES:
        return None
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    code = PASSING if is_transient(error) or not _names(error) & _STORE_MISTAKES else MISTAKE
    return f"the store cannot be used ({what}); check the URL, the credentials and the network", code


def _fault(error: Exception) -> tuple[str, int]:
    what = f"{type(error).__name__}: {_line(error)}".removesuffix(": ")
    return (
        f"this is a bug in sgloc, not a user error: {what}, in {_place(error)}; please report it with the traceback, "
        "which SGLOC_DEBUG=1 shows"
    ), FAULT


def _place(error: Exception) -> str:
    """Return file, line and function of the innermost frame in our own packages, or in any code if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    own = [frame for frame in frames if any(Path(frame.filename).is_relative_to(_ROOT / name) for name in _PACKAGES)]
    frame = (own or frames)[-1]
    path = Path(frame.filename)
    shown = path.relative_to(_ROOT) if own else path
    return f"{shown}, line {frame.lineno}, {frame.name}"


def leave_verdict(code: object) -> None:
    """Record an exit code for the launcher, if there is one and the code means that a restart would fail again.

    A rank does this before the others notice that it is gone: they end with another code, and the launcher may kill
    this rank before it exits.
    """
    path = os.environ.get(VERDICT_VARIABLE)
    if path and code in (MISTAKE, FAULT):
        with contextlib.suppress(OSError):
            Path(path).write_text(str(code), encoding="ascii")


def read_verdict() -> int | None:
    """Return the exit code that a rank has recorded; None if there is none."""
    path = os.environ.get(VERDICT_VARIABLE)
    try:
        return int(Path(path).read_text(encoding="ascii")) if path else None
    except (OSError, ValueError):
        return None
