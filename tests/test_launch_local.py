"""launch/local.py: training on this machine, or on one of several, while its processes fail or are stopped."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.local import main
from sgloc.program import run_program
from sgloc.signals import STOP_SIGNALS
from tests.patience import PATIENCE
from tests.ports import free_port
from tests.train.launch import kill, losses, records, run, tiny_options, wait_for_ranks_to_stop, wait_until, workers

STEPS = ("--train.num_steps", "24")
FOREVER = ("--train.num_steps", "100000", "--train.patience", "0")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Restore signal handlers: the launcher keeps its own for the life of its process, here the test process."""
    numbers = (*STOP_SIGNALS, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Launched:
    """A launcher running in its own process group, and its log; `launched` kills it on exit."""

    def __init__(self, log: Path, *words: str, failpoint: str = "") -> None:
        self._log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"SGLOC_FAILPOINT": failpoint} if failpoint else {})}
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launch.local", *words],
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, number: int) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def listens_to(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@contextlib.contextmanager
def launched(log: Path, *words: str, failpoint: str = "") -> Iterator[Launched]:
    started = Launched(log, *words, failpoint=failpoint)
    try:
        yield started
    finally:
        kill(started.process)


@pytest.mark.slow
def test_stopped_and_killed(tmp_path: Path, sample_shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = tmp_path / "run"
    words = ("--processes", "2", "train", *tiny_options(run_dir, sample_shards), *STEPS)
    with launched(tmp_path / "early", *words) as early:
        # While options are still checked: no rank is running yet, and new ranks do not handle signals at once either.
        assert wait_until(lambda: listens_to(early.process.pid, signal.SIGTERM), early.process), early.log
        assert list(workers(early.process)) == []
        assert early.ask(signal.SIGTERM) == 0, early.log
        assert "stopped by a signal at step 1;" in early.log
    monkeypatch.setenv("SGLOC_FAILPOINT", "step:hang:7")
    with launched(tmp_path / "log", *words) as second:
        victim, other = wait_for_ranks_to_stop(second.process, 2)
        os.kill(victim, signal.SIGKILL)
        os.kill(other, signal.SIGCONT)
        # The restarted ranks stop at the same failpoint.
        for rank in wait_for_ranks_to_stop(second.process, 2):
            os.kill(rank, signal.SIGCONT)
        assert second.process.wait(PATIENCE) == 0, second.log
        assert second.log.count("resuming from") == 2
        assert "Traceback" not in second.log
    monkeypatch.delenv("SGLOC_FAILPOINT")
    assert losses(records(run_dir)) == losses(run(tmp_path / "unbroken", sample_shards, 2, *STEPS))
    with launched(tmp_path / "other", *words, "--train.seed", "1") as refused:
        assert refused.process.wait(PATIENCE) == 2
        assert refused.log.count("sgloc train: ") == refused.log.count("belongs to another run") == 1
        assert "Traceback" not in refused.log


@pytest.mark.slow
def test_an_elastic_run_goes_on_without_a_machine_and_takes_it_in_again(tmp_path: Path, picture_shards: str) -> None:
    run_dir = tmp_path / "run"
    meeting = f"localhost:{free_port()}"
    words = ["--nodes", "1:2", "--processes", "1", "--rendezvous", meeting]
    words += ["train", *tiny_options(run_dir, picture_shards), *FOREVER]
    # Both launchers share one log: rank 0 logs the number of processes and may be on either.
    log = tmp_path / "log"
    with launched(log, *words) as first:

        def trains_with(number: int, since: int) -> bool:
            return f", {number} process(es)" in first.log[since:]

        def takes_steps(number: int) -> bool:
            return len(records(run_dir)) >= last + number

        # The launcher that starts first serves the rendezvous.
        assert wait_until(lambda: _listens(meeting), first.process), first.log
        with launched(log, *words) as second:
            last = 0
            assert wait_until(lambda: trains_with(2, 0) and takes_steps(6), first.process), first.log
            os.killpg(second.process.pid, signal.SIGKILL)
        since, last = len(first.log), len(records(run_dir))
        assert wait_until(lambda: trains_with(1, since) and takes_steps(3), first.process), first.log
        since = len(first.log)
        with launched(log, *words) as third:
            assert wait_until(lambda: trains_with(2, since), first.process), first.log
            last = len(records(run_dir))
            assert wait_until(lambda: takes_steps(3), first.process), first.log
            assert first.ask(signal.SIGTERM) == 0, first.log
            assert third.process.wait(PATIENCE) == 0, third.log
    elastic = losses(records(run_dir))
    unbroken = losses(run(tmp_path / "unbroken", picture_shards, 1, "--train.num_steps", str(len(elastic))))
    for mine, theirs in zip(elastic, unbroken, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def _listens(meeting: str) -> bool:
    host, _, port = meeting.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.mark.slow
def test_a_machine_does_not_wait_for_one_that_has_ended_for_good(tmp_path: Path, tiny_shards: str) -> None:
    meeting = f"localhost:{free_port()}"
    words = ["--nodes=2", "--processes=1", "--rendezvous", meeting, "--max_restarts=1"]
    training = ["train", *tiny_options(tmp_path / "run", tiny_shards), *STEPS]
    with launched(tmp_path / "first", *words, "--node_rank=0", *training) as first:
        # The failpoint raises an internal error in the other machine's rank at its second step.
        with launched(tmp_path / "second", *words, "--node_rank=1", *training, failpoint="step:fault:2") as second:
            assert second.process.wait(PATIENCE) == 3, second.log
        assert first.process.wait(PATIENCE) == 3, first.log
        assert "another machine ended with exit code 3" in first.log


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "the command to start is missing; pass one, such as train"),
        (
            ["train", "--train.sed", "3"],
            "unknown option --train.sed; did you mean --train.seed?; see `sgloc train --help`",
        ),
        (["train", "--data", "nosuch"], "nosuch/manifest.json does not exist"),
        (["train", "--resume=never", "--data=x"], "--resume never is not possible here: restarts resume from"),
        (["evaluate", "--checkpoint", "a"], "launch.local: the following options are required: --data, --out; see"),
        (["--config", "a.yaml", "train"], "unknown option --config; put the command's own options after its name"),
        (["--processes", "0", "train"], "processes must be auto or at least 1, not 0"),
        (["--nodes", "2:1", "train"], "nodes must be a number or MIN:MAX, not 2:1"),
        (["--nodes=1:2"], "several machines need a rendezvous, the same on all; set --rendezvous HOST:PORT"),
        (["--nodes=2", "--rendezvous=node0"], "set --rendezvous HOST:PORT"),
        (["--nodes=2", "--rendezvous=n:1"], "node_rank must be from 0 to 1, not None"),
        (["--nodes=1:2", "--rendezvous=n:1", "--node-rank=0"], "an elastic run numbers its machines itself"),
        (["--process", "2"], "unknown option --process; did you mean --processes?"),
        (["--max_restarts", "-1"], "max_restarts must be at least 0, not -1"),
    ],
)
def test_mistakes_are_told_before_anything_is_started(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_program("launch.local", main, words)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err
