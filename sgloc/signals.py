"""Signals that ask a program to stop: the same set in every command (DESIGN contract 5)."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# TERM remains: by it, a parent ends its workers.
_OF_THE_PARENT = tuple(number for number in STOP_SIGNALS if number != signal.SIGTERM)


def wanted_signals() -> list[signal.Signals]:
    """The stop signals that this process should listen to: all but SIGHUP where nohup has it ignored."""
    return [number for number in STOP_SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Hold Ctrl-C back while inside, so that it finds the processes that are started here all there.

    They keep the stop signals but TERM blocked until `leave_to_parent`.
    """
    # Python's resource tracker unblocks SIGINT when it starts, so it must run before.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_PARENT)
    try:
        # Another thread, such as those of BLAS, may take the signal, and Python then calls the handler in this one.
        with _deferred(signal.SIGINT):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _deferred(number: signal.Signals) -> Iterator[None]:
    """Call a signal's handler after the inside, in place of during it."""
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
    """Ignore the stop signals but TERM in a worker: a terminal sends them to a whole group, and the parent answers for
    all."""
    for number in _OF_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    # What was pending is dropped, not delivered.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_PARENT)
