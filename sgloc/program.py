"""How every program of this project begins and ends.

At its beginning it gets streams that can be written to. At its end it says one sentence for people, shows the traceback
where that was asked for, and gives an exit code that tells who is to act (DESIGN contract 10).
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

SPEECH = """Every command takes --quiet (warnings and errors alone), --verbose (all that is logged, with time, rank and
module), --log-format text or json, and --debug (the traceback of what goes wrong). Processes that a command starts
heed the same variables: SGLOC_LOG_LEVEL, SGLOC_LOG_FORMAT and SGLOC_DEBUG=1."""

logger = logging.getLogger(__name__)

_DEBUG_VARIABLE = "SGLOC_DEBUG"
# Options without a value: the variable that each sets, and to what.
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
    """Run a program to its end.

    Args:
        name: what its sentences begin with.
        function: is given its words, and gives its exit code; None stands for 0.
        arguments: the words, those about its speech among them; None: those of the command line.

    Raises:
        SystemExit: always.
    """
    words = begin(name, arguments)
    with ending(name):
        sys.exit(function(words) or 0)


def begin(name: str, arguments: Sequence[str] | None = None) -> list[str]:
    """Make the standard streams safe, and configure logging as words and variables say; gives the other words.

    Raises:
        SystemExit: if torchrun has started this rank again after a failure that would come again, or the words ask for
            a form of speech that there is not.
    """
    _open_streams()
    log.configure()
    _heed_verdict()
    with ending(name):
        words = _without_speech(list(sys.argv[1:] if arguments is None else arguments))
    log.configure()
    return words


def _without_speech(words: list[str]) -> list[str]:
    """The words without those about speech, which go into variables: processes that this one starts see them too."""
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
    """Whether tracebacks are to be shown."""
    return os.environ.get(_DEBUG_VARIABLE, "") not in ("", "0")


def show(text: str, end: str = "\n") -> None:
    """Print to standard output what a command was asked for, without the secrets of its URLs."""
    print(mask(text), end=end, flush=True)


def tell(program: str, message: str, error: SglocError | None = None) -> None:
    """Log one sentence of a program as an error, after the traceback of what it is about, if that was asked for."""
    trace = trace_of(error) if error is not None and debugging() else ""
    logger.error("%s: %s", program, " ".join(message.split()), extra={"trace": trace})


@contextlib.contextmanager
def ending(name: str) -> Iterator[None]:
    """Turn whatever ends the program inside into one sentence and an exit code.

    Raises:
        SystemExit: 1 for what may pass, 2 for a mistake, 3 for a fault of the program, 130 for Ctrl-C.
    """
    try:
        try:
            yield
        finally:
            # Here it can be told what goes wrong.
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as stop:
        leave_verdict(stop.code)
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not _has_reader():
            # Whoever read the output, as head does, has seen enough.
            _drop_output()
            sys.exit(PASSING)
        told, code = as_told(error), exit_code_of(as_told(error))
        if debugging() or not told.told:
            tell(name, str(told), told)
        _drop_output()
        if isinstance(told, SilentStoreError):
            # Python would take its time to end, or crash, beside a thread that hangs.
            os._exit(code)
        leave_verdict(code)
        sys.exit(code)


def _heed_verdict() -> None:
    verdict = read_verdict()
    if verdict is not None and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        sys.exit(verdict)


def _drop_output() -> None:
    """Let go of what cannot be written to standard output: Python would try again when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _OUTPUT)


def _has_reader() -> bool:
    """Whether somebody may still read what is printed."""
    output = select.poll()
    output.register(_OUTPUT, 0)
    return not any(event & select.POLLERR for _, event in output.poll(0))


def _open_streams() -> None:
    """Give closed standard streams the null device, and have the others write what their encoding lacks as escapes.

    cron and some supervisors start programs with closed streams. Python has None for each, and the next file that is
    opened takes its number: what a library prints would go into a checkpoint.
    """
    for number, name in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDONLY if number == _INPUT else os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            # Programs that this one starts have it too.
            os.set_inheritable(number, True)
        stream = getattr(sys, name)
        if stream is None:
            mode = "r" if number == _INPUT else "w"
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
        elif number != _INPUT and getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            # In UTF-8, nothing is missing but what is in names of files that are not UTF-8.
            is_utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")
