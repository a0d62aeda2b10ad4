"""Start and end of every program of this project.

At the start, a program gets usable standard streams. At the end, an error becomes one sentence, a traceback if
requested, and an exit code that tells user errors, transient errors and bugs apart (DESIGN contract 10).
"""

import contextlib
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from sgloc import log
from sgloc.errors import SglocError, SilentStoreError, UsageError
from sgloc.faults import INTERRUPTED, PASSING, as_told, exit_code_of, leave_verdict, read_verdict, trace_of
from sgloc.masking import mask

SPEECH = """Every command accepts --quiet (log only warnings and errors), --verbose (log everything, with time, rank and
module), --log-format text or json, and --debug (show the traceback of an error). The environment variables
SGLOC_LOG_LEVEL, SGLOC_LOG_FORMAT and SGLOC_DEBUG=1 do the same, and are passed on to child processes."""

logger = logging.getLogger(__name__)

_DEBUG_VARIABLE = "SGLOC_DEBUG"
# Flags: the environment variable that each sets, and its value.
_FLAGS = {
    "--quiet": (log.LEVEL_VARIABLE, "WARNING"),
    "--verbose": (log.LEVEL_VARIABLE, "DEBUG"),
    "--debug": (_DEBUG_VARIABLE, "1"),
}
_FORMAT_OPTIONS = ("--log-format", "--log_format")
_INPUT, _OUTPUT = 0, 1
_STREAMS = ("stdin", "stdout", "stderr")


def run_program(
    name: str, function: Callable[[list[str]], int | None], arguments: Sequence[str] | None = None
) -> NoReturn:
    """Run a program and exit.

    Args:
        name: name of the program; every error message starts with it.
        function: the program; takes the arguments and returns the exit code, None meaning 0.
        arguments: the arguments, including the logging options; None for those of the command line.

    Raises:
        SystemExit: always.
    """
    words = begin(name, arguments)
    with ending(name):
        sys.exit(function(words) or 0)


def begin(name: str, arguments: Sequence[str] | None = None) -> list[str]:
    """Make the standard streams usable, configure logging from options and variables, and return the other arguments.

    Raises:
        SystemExit: if torchrun has restarted this rank after an error that would recur, or the log format is unknown.
    """
    _open_streams()
    log.configure()
    _heed_verdict()
    with ending(name):
        words = _without_speech(list(sys.argv[1:] if arguments is None else arguments))
    log.configure()
    return words


def _without_speech(words: list[str]) -> list[str]:
    """Remove the logging options from the arguments, and set environment variables that child processes inherit."""
    others = []
    while words:
        option, equals, value = (word := words.pop(0)).partition("=")
        if word in _FLAGS:
            variable, value = _FLAGS[word]
            os.environ[variable] = value
        elif option in _FORMAT_OPTIONS:
            value = value if equals or not words else words.pop(0)
            if value not in log.FORMS:
                raise UsageError(f"--log-format must be {' or '.join(log.FORMS)}, not {value!r}")
            os.environ[log.FORM_VARIABLE] = value
        else:
            others.append(word)
    return others


def debugging() -> bool:
    """Return whether tracebacks should be shown."""
    return os.environ.get(_DEBUG_VARIABLE, "") not in ("", "0")


def show(text: str, end: str = "\n") -> None:
    """Print a command's result to standard output, with secrets in URLs masked."""
    print(mask(text), end=end, flush=True)


def tell(program: str, message: str, error: SglocError | None = None) -> None:
    """Log a one-sentence error message of a program, after the traceback of `error` if debugging is on."""
    trace = trace_of(error) if error is not None and debugging() else ""
    logger.error("%s: %s", program, " ".join(message.split()), extra={"trace": trace})


@contextlib.contextmanager
def ending(name: str) -> Iterator[None]:
    """Turn any exception that ends the program inside the context into one sentence and an exit code.

    Raises:
        SystemExit: with code 1 for a transient error, 2 for a user error, 3 for a bug (internal error), 130 for Ctrl-C.
    """
    try:
        try:
            yield
        finally:
            # Flush here, where a failure can still be reported.
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as stop:
        leave_verdict(stop.code)
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not _has_reader():
            # The reader of the output, such as `head`, has closed the pipe.
            _drop_output()
            sys.exit(PASSING)
        told, code = as_told(error), exit_code_of(as_told(error))
        if debugging() or not told.told:
            tell(name, str(told), told)
        _drop_output()
        if isinstance(told, SilentStoreError):
            # With a hanging thread, Python's own exit may take long or crash.
            os._exit(code)
        leave_verdict(code)
        sys.exit(code)


def _heed_verdict() -> None:
    verdict = read_verdict()
    if verdict is not None and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        sys.exit(verdict)


def _drop_output() -> None:
    """Discard output that cannot be written to standard output; otherwise Python would retry at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _OUTPUT)


def _has_reader() -> bool:
    """Return whether the reading end of standard output is still open."""
    output = select.poll()
    output.register(_OUTPUT, 0)
    return not any(event & select.POLLERR for _, event in output.poll(0))


def _open_streams() -> None:
    """Connect closed standard streams to the null device, and make the others escape unencodable characters.

    cron and some supervisors start programs with closed streams. Python then sets the stream to None, and the next file
    opened gets its file descriptor: a library's output would end up in a checkpoint.
    """
    for number, name in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDONLY if number == _INPUT else os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            # Child processes inherit it.
            os.set_inheritable(number, True)
        stream = getattr(sys, name)
        if stream is None:
            mode = "r" if number == _INPUT else "w"
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
        elif number != _INPUT and getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            # In UTF-8, only file names that are not valid UTF-8 cannot be encoded.
            is_utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")
