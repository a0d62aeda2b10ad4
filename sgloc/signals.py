"""Stop signals: the same set in every command (DESIGN contract 5)."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# Signals that workers leave to the parent: not TERM, with which the parent ends them.
_OF_THE_PARENT = tuple(number for number in STOP_SIGNALS if number != signal.SIGTERM)


def wanted_signals() -> list[signal.Signals]:
    """Return the stop signals that this process should handle: all, except SIGHUP if nohup ignores it."""
    return [number for number in STOP_SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Defer Ctrl-C while the context is active, so that it arrives when all workers have been started.

    The workers keep all stop signals except TERM blocked until they call `leave_to_parent`.
    """
    # Python's resource tracker unblocks SIGINT when it starts, so start it first.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_PARENT)
    try:
        # Blocking is not enough: another thread, such as one of BLAS, may receive the signal, and Python then calls the
        # handler in this thread.
        with _deferred(signal.SIGINT):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _deferred(number: signal.Signals) -> Iterator[None]:
    """Defer a signal's handler until the context exits."""
    handler = signal.getsignal(number)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    heard: list[int] = []
    signal.signal(number, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(number, handler)
        if heard:
            signal.raise_signal(number)


def leave_to_parent() -> None:
    """Ignore all stop signals except TERM in a worker: a terminal sends them to the whole process group, and the parent
    handles them for all."""
    for number in _OF_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    # Pending signals are now dropped, not delivered.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_PARENT)
