"""Stop signals: every command handles the same set, and signals that nohup ignores stay ignored."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sgloc.signals import STOP_SIGNALS, leave_to_parent, starting_workers
from sgloc.train.checkpoint.load import checkpoint_steps
from tests.patience import PATIENCE
from tests.train.launch import kill, records, start, tiny_options, wait_until
from tests.train.runs import make_config, train

FOREVER = ("--train.num_steps", "100000", "--train.patience", "0", "--train.checkpoint_every", "100000")


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_each_saves_and_ends(
    sample_shards: str,
    tmp_path: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failpoint(place: str, step: int) -> None:
        if (place, step) == ("step", 2):
            os.kill(os.getpid(), number)

    monkeypatch.setattr("sgloc.train.trainer.failpoint", failpoint)
    before = signal.getsignal(number)
    train(make_config(sample_shards, tmp_path), "auto")
    assert "stopped by a signal at step 2; run the same command again to resume" in capsys.readouterr().err
    assert checkpoint_steps(str(tmp_path)) == [2]
    assert signal.getsignal(number) == before


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2], ids=["plain", "torchrun"])
def test_a_closed_terminal_saves_and_ends(tmp_path: Path, sample_shards: str, num_processes: int) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    process = start(run_dir, sample_shards, num_processes, *FOREVER, log=log)
    try:
        assert wait_until(lambda: len(records(run_dir)) >= 2, process), log.read_text()
        if num_processes == 1:
            # Like a closing terminal, signal the whole process group.
            os.killpg(process.pid, signal.SIGHUP)
        else:
            process.send_signal(signal.SIGHUP)
        process.wait(PATIENCE)
    finally:
        kill(process)
    assert "stopped by a signal at step" in log.read_text()
    assert checkpoint_steps(str(run_dir)) == [records(run_dir)[-1]["step"]]


@pytest.mark.slow
def test_what_nohup_ignores_stays_ignored(tmp_path: Path, sample_shards: str) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    words = [sys.executable, "-m", "sgloc", "train", *tiny_options(run_dir, sample_shards), *FOREVER]
    with log.open("ab") as output:
        process = subprocess.Popen(["nohup", *words], stdout=output, stderr=output, start_new_session=True)
    try:
        assert wait_until(lambda: len(records(run_dir)) >= 2, process), log.read_text()
        os.killpg(process.pid, signal.SIGHUP)
        more = len(records(run_dir)) + 2
        assert wait_until(lambda: len(records(run_dir)) >= more, process), log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        kill(process)
    assert "stopped by a signal at step" in log.read_text()


def test_ctrl_c_waits_until_the_workers_are_started() -> None:
    started = False

    def start_workers() -> None:
        nonlocal started
        with starting_workers():
            # Sent to the process: another thread that does not block the signal may receive it.
            os.kill(os.getpid(), signal.SIGINT)
            started = True
        # The thread that receives the signal may have to wait for a CPU.
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        start_workers()
    assert started
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_workers_leave_to_their_parent_what_a_terminal_tells_all(tmp_path: Path) -> None:
    leaving = f"from {leave_to_parent.__module__} import leave_to_parent, STOP_SIGNALS, starting_workers\n"
    script = f"""{leaving}
import os, signal
with starting_workers():
    pass
for number in STOP_SIGNALS:
    if number != signal.SIGTERM:
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        os.kill(os.getpid(), number)
leave_to_parent()
print("still here", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "still here\n", "")
