"""`DaemonPool`: closing waits for short jobs but not for jobs that hang."""

import threading
import time

import pytest

from sgloc.threads import DaemonPool
from tests.patience import PATIENCE


def test_a_closed_pool_has_finished_its_job_and_begins_no_other() -> None:
    pool, begun = DaemonPool(1, "pool"), threading.Event()

    def work() -> str:
        begun.set()
        time.sleep(0.1)
        return "done"

    first, second = pool.submit(work), pool.submit(work)
    assert begun.wait(PATIENCE)
    pool.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pool-")]
    assert first.result(0) == "done"
    assert second.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(work)


def test_a_job_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgloc.threads._LINGER_SECONDS", 0.05)
    pool, begun, release = DaemonPool(1, "hanging"), threading.Event(), threading.Event()

    def hang() -> bool:
        begun.set()
        return release.wait(PATIENCE)

    future = pool.submit(hang)
    assert begun.wait(PATIENCE)
    pool.close()
    assert not future.done()
    release.set()
    assert future.result(60)


def test_a_job_that_cannot_hang_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgloc.threads._LINGER_SECONDS", 0.0)
    pool, begun = DaemonPool(1, "busy", may_hang=False), threading.Event()

    def work() -> str:
        begun.set()
        time.sleep(0.2)
        return "done"

    future = pool.submit(work)
    assert begun.wait(PATIENCE)
    pool.close()
    assert future.result(0) == "done"


def test_a_pool_may_be_closed_by_its_own_thread() -> None:
    pool = DaemonPool(1, "own")
    pool.submit(pool.close).result(60)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(pool.close)
