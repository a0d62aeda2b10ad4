"""Threads for what may hang in a store: they never keep a process from ending, nor a caller waiting without limit."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sgloc.errors import SilentStoreError

# Of the time that other ranks wait, what a rank waits for a store: so that it is the one to tell.
PATIENT_SHARE = 0.9
# What a pool that is closed waits for jobs in progress. A read that hangs takes longer.
_LINGER_SECONDS = 1.0

Value = TypeVar("Value")
_Job = tuple[Future[Any], Callable[[], Any]]


class DaemonPool:
    """A few threads that do jobs one after another.

    Python joins the threads of a ThreadPoolExecutor when it exits, whatever they wait for; it leaves these alone. A
    thread that is inside a C++ library when Python exits aborts the process, so closing waits for jobs in progress.

    Args:
        num_threads: how many.
        name: of the threads, for people.
        may_hang: whether a job may take for ever: closing then waits only a little.
    """

    def __init__(self, num_threads: int, name: str, *, may_hang: bool = True) -> None:
        self._may_hang = may_hang
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._is_open, self._lock = True, threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., Value], *arguments: Any) -> Future[Value]:
        """Have a thread call a function; the future has what it gives or raises.

        Raises:
            RuntimeError: if the pool is closed.
        """
        future: Future[Value] = Future()
        with self._lock:
            if not self._is_open:
                raise RuntimeError("the pool is closed")
            self._jobs.put((future, lambda: function(*arguments)))
        return future

    def close(self) -> None:
        """Begin nothing more, cancel what waits, and wait for jobs in progress; not long, if they may hang."""
        with self._lock:
            self._is_open = False
            while not self._jobs.empty():
                with contextlib.suppress(queue.Empty):
                    job = self._jobs.get_nowait()
                    if job is not None:
                        job[0].cancel()
            for _ in self._threads:
                self._jobs.put(None)
        end = time.monotonic() + _LINGER_SECONDS
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()) if self._may_hang else None)

    def _work(self) -> None:
        while job := self._jobs.get():
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # Whoever asks for the result gets it.
                future.set_exception(error)
            # Until the next job, this thread would keep what the last one gave.
            del job, future, call


class Patience:
    """Calls to a store, one at a time, each of which is waited for only so long.

    Args:
        seconds: that a call may take.
        what: is called, as a sentence's subject.
    """

    def __init__(self, seconds: float, what: str) -> None:
        self.seconds, self.what = seconds, what
        self._thread: threading.Thread | None = None

    def __call__(self, action: Callable[[], Value]) -> Value:
        """What an action gives, or raises.

        Raises:
            SilentStoreError: if it takes longer, or the one before still hangs.
        """
        if self._thread is not None and self._thread.is_alive():
            raise SilentStoreError(f"{self.what} still does not answer; check the store, then start again")
        future: Future[Value] = Future()
        self._thread = threading.Thread(target=_call, args=(future, action), name="sgloc-store", daemon=True)
        self._thread.start()
        self._thread.join(self.seconds)
        if not future.done():
            raise SilentStoreError(
                f"{self.what} has not answered for {self.seconds:g} s; check the store, then start again"
            )
        return future.result()


def _call(future: Future[Value], action: Callable[[], Value]) -> None:
    try:
        future.set_result(action())
    except BaseException as error:  # Whoever asks for the result gets it.
        future.set_exception(error)
