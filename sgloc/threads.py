"""Threads for store calls that may hang: they never block the process's exit, nor a caller without limit."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sgloc.errors import SilentStoreError

# Share of the ranks' timeout that a rank waits for a store, so that it reports the error before the others give up.
PATIENT_SHARE = 0.9
# How long closing a pool waits for running jobs; a hanging read takes longer, and is abandoned.
_LINGER_SECONDS = 1.0

Value = TypeVar("Value")
_Job = tuple[Future[Any], Callable[[], Any]]


class DaemonPool:
    """A thread pool with daemon threads.

    At exit, Python joins the threads of a ThreadPoolExecutor even if they hang; it does not join daemon threads. A
    thread inside a C++ library aborts the process when Python exits, so `close` waits for jobs in progress.

    Args:
        num_threads: number of threads.
        name: prefix of the threads' names.
        may_hang: whether a job may never end; `close` then waits only briefly.
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
        """Call a function in a thread; return a future for its result or exception.

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
        """Refuse new jobs, cancel queued ones, and wait for the current ones: only briefly if they may hang."""
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
            except BaseException as error:  # Re-raised by `future.result()`.
                future.set_exception(error)
            # Otherwise this thread would keep the last result alive until its next job.
            del job, future, call


class Patience:
    """Calls to a store, one at a time, with a time limit.

    Args:
        seconds: time limit of a call in seconds.
        what: what is called, as the subject of an error message.
    """

    def __init__(self, seconds: float, what: str) -> None:
        self.seconds, self.what = seconds, what
        self._thread: threading.Thread | None = None

    def __call__(self, action: Callable[[], Value]) -> Value:
        """Call `action` and return its result, or raise its exception.

        Raises:
            SilentStoreError: if the call exceeds the time limit, or the previous call still hangs.
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
    except BaseException as error:  # Re-raised by `future.result()`.
        future.set_exception(error)
