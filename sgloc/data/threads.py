"""Threads for reads, which may hang in a store: they never keep a process from ending."""

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Value = TypeVar("Value")
_Job = tuple[Future[Any], Callable[[], Any]]


class DaemonPool:
    """A few threads that do jobs one after another.

    Python joins the threads of a ThreadPoolExecutor when it exits, whatever they wait for; it leaves these alone.

    Args:
        num_threads: how many.
        name: of the threads, for people.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._num_threads, self._is_open, self._lock = num_threads, True, threading.Lock()
        for number in range(num_threads):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

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
        """Begin nothing more, cancel what waits, and let each thread end when its job does."""
        with self._lock:
            self._is_open = False
            while not self._jobs.empty():
                with contextlib.suppress(queue.Empty):
                    job = self._jobs.get_nowait()
                    if job is not None:
                        job[0].cancel()
            for _ in range(self._num_threads):
                self._jobs.put(None)

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
