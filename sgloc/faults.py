"""Whose fault an exception is: the user's, that of what may pass, or the program's (DESIGN contract 10)."""

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
# What such a library raises where the user has to do something.
_STORE_MISTAKES = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError", "SSLError"}
)
# What is full may be emptied; none of it is worth another try within seconds.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
# What a wrong path gives. Of anything else a path is no explanation.
_WRONG_PATH = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EROFS, errno.EXDEV})
_WRONG_PATH_TYPES = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
# Names a file in which a program that must not be started again leaves its exit code: torchrun starts ranks again
# whatever theirs was, and srun gives that of a node that it ended itself.
VERDICT_VARIABLE = "SGLOC_VERDICT"
# Of torch, by name: importing it takes seconds, and versions have them in different places.
_OF_COLLECTIVES = frozenset({"DistError", "DistBackendError", "DistNetworkError", "DistStoreError", "RendezvousError"})
_DEVICE_PHRASES = ("CUDA error", "CUDA driver error", "cuDNN error", "CUBLAS_STATUS", "NCCL")
# The program asked for what cannot be, and would ask again.
_DEVICE_FAULTS = ("device-side assert", "invalid argument", "invalid configuration", "illegal memory access")
_LONGEST = 300
# A sentence and an exit code, where an exception is of a certain kind.
_Told = tuple[str, int] | None


def exit_code_of(error: SglocError) -> int:
    """The exit code of the command that an error ends: 1 where its cause may pass, else the error's own."""
    if error.exit_code == MISTAKE and error.__cause__ is not None and may_pass(error.__cause__):
        return PASSING
    return error.exit_code


def may_pass(error: BaseException) -> bool:
    """Whether what an exception tells of may be gone later: a store or network that fails, a disk that is full."""
    from sgloc.storage import DamagedReadError, is_transient

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DamagedReadError):
            return False
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno in _FULL):
            return True
        cause = cause.__cause__
    # A process of a pool that the kernel ended, for want of memory as a rule.
    return is_transient(error) or bool(_names(error) & (_OF_COLLECTIVES | {"BrokenProcessPool"}))


def as_told(error: Exception) -> SglocError:
    """What people are told of any exception: a sentence, and the exit code that goes with it.

    Args:
        error: as it was raised.

    Returns:
        The error itself, if it is ours; else one that says whose fault it is, with the exception as its cause.
    """
    if isinstance(error, SglocError):
        return error
    kinds = (_of_memory, _of_ranks_and_devices, _of_names, _of_paths, _of_stores)
    sentence, code = next(filter(None, (kind(error) for kind in kinds)), None) or _fault(error)
    told = SglocError(sentence)
    told.exit_code, told.__cause__ = code, error
    return told


def trace_of(error: BaseException) -> str:
    """The traceback of an exception and its causes, those from other processes included."""
    before = getattr(error, "trace", "")
    here = "".join(traceback.format_exception(error))
    return f"{before}\n{here}" if before else here


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _line(error: BaseException) -> str:
    """The first words of an error, without the stack that some libraries put into it."""
    text = next((line for line in str(error).splitlines() if line.strip()), "").strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _of_memory(error: Exception) -> _Told:
    if "OutOfMemoryError" in _names(error):
        advice = "give a smaller batch, or for training a larger train.accumulation"
        return f"the memory of the device does not suffice ({_line(error)}); {advice}", PASSING
    if isinstance(error, MemoryError):
        return f"the memory does not suffice ({_line(error)}); free some, or give less to do at a time", PASSING
    return None


def _of_ranks_and_devices(error: Exception) -> _Told:
    if not isinstance(error, RuntimeError):
        return None
    dist, text = sys.modules.get("sgloc.dist"), str(error)
    if dist is not None and dist.lost_rank(error):
        return f"another process is gone or does not answer ({_line(error)}); start again", PASSING
    if _names(error) & _OF_COLLECTIVES:
        return f"the processes have lost each other ({_line(error)}); start again", PASSING
    is_of_device = "AcceleratorError" in _names(error) or any(phrase in text for phrase in _DEVICE_PHRASES)
    if is_of_device and not any(phrase in text for phrase in _DEVICE_FAULTS):
        advice = "start again, and see `sgloc doctor` if it comes back"
        return f"the device has failed ({_line(error)}); {advice}", PASSING
    return None


def _of_names(error: Exception) -> _Told:
    encoding = sys.getfilesystemencoding()
    if not isinstance(error, UnicodeEncodeError) or encoding == "utf-8" or error.encoding not in encoding:
        return None
    return f"names of files have to be {encoding} here ({_line(error)}); set LC_ALL=C.UTF-8", MISTAKE


def _of_paths(error: Exception) -> _Told:
    """Of what the operating system says of a path, a disk or a network; not of what only a fault brings about."""
    from sgloc.storage import STORES

    if not isinstance(error, OSError) or type(error).__module__.partition(".")[0] in STORES:
        return None
    said = " ".join(str(error).split())
    if may_pass(error):
        advice = "make room" if error.errno in _FULL else "check the network and the server, or the disk"
        return f"{said}; {advice}, then start again", PASSING
    name = error.filename if isinstance(error.filename, str) else ""
    is_of_path = isinstance(error, _WRONG_PATH_TYPES) or error.errno in _WRONG_PATH
    # A store's file system gives neither number nor name.
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
        f"this is a fault of the program, not of what it was given: {what}, in {_place(error)}; please report it with "
        "the traceback, which SGLOC_DEBUG=1 or --debug shows"
    ), FAULT


def _place(error: Exception) -> str:
    """File, line and function where an exception arose: the innermost that are ours."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    own = [frame for frame in frames if any(Path(frame.filename).is_relative_to(_ROOT / name) for name in _PACKAGES)]
    frame = (own or frames)[-1]
    path = Path(frame.filename)
    shown = path.relative_to(_ROOT) if own else path
    return f"{shown}, line {frame.lineno}, {frame.name}"


def leave_verdict(code: object) -> None:
    """Leave an exit code for the launcher, where there is one and the code says that a restart would fail again.

    A rank does this before the others can see it gone: they end with another code, and the launcher may end this rank
    before it gets to its own.
    """
    path = os.environ.get(VERDICT_VARIABLE)
    if path and code in (MISTAKE, FAULT):
        with contextlib.suppress(OSError):
            Path(path).write_text(str(code), encoding="ascii")


def read_verdict() -> int | None:
    """The exit code that a rank has left, if any."""
    path = os.environ.get(VERDICT_VARIABLE)
    try:
        return int(Path(path).read_text(encoding="ascii")) if path else None
    except (OSError, ValueError):
        return None
