"""A submitit task of a Slurm job: runs one process of a command, stops it in time, and requeues the job."""

import math
import os
import signal
import subprocess
import sys
import time
from types import FrameType

import submitit

from launch.command import Launched
from sgloc.faults import FAULT, MISTAKE, PASSING
from sgloc.signals import wanted_signals

# How long before the time limit Slurm sends its warning, and how long saving may take.
WARNING_SECONDS = 120
_SAVING_SECONDS = 100.0
# A job stopped this late without a new checkpoint will never manage to save one.
_START_SECONDS = 300.0
_POLL_SECONDS = 0.5
# How long listing the checkpoints in a store may take.
_STORE_SECONDS = 120.0
# Exit codes of a process that Slurm has terminated, as reported by Python and by a shell.
_ENDED_BY_SLURM = tuple(code for number in (signal.SIGTERM, signal.SIGKILL) for code in (-number, 128 + number))
# How much longer than the training timeout the other ranks wait for rank 0 to decide about a failure.
_VERDICT_SECONDS = 60.0


class Task:
    """Callable that runs one process of a command to its end; takes the share of a build, such as "3/16", if any.

    Args:
        launched: the command.
    """

    def __init__(self, launched: Launched) -> None:
        self._launched = launched
        # None, because Slurm may end the task before the process starts.
        self._process: subprocess.Popen[bytes] | None = None
        self._start, self._at_start, self._leads = math.inf, "", False

    def __call__(self, share: str = "") -> None:
        """Run the process.

        Raises:
            RuntimeError: if it fails.
        """
        try:
            self._run(share)
        except subprocess.CalledProcessError as error:
            # Slurm ends a requeued job at once, and scontrol with it; submitit would report the error as the result of
            # the job. A site's scontrol may be a shell script, which exits with 128 + the signal.
            if error.returncode not in _ENDED_BY_SLURM:
                raise
            sys.exit(PASSING)

    def _run(self, share: str) -> None:
        self._start, self._leads = time.monotonic(), os.environ.get("SLURM_PROCID", "0") == "0"
        self._at_start = self._newest() if self._leads else ""
        command = [*self._launched.process(), *(["--task", share] if share else [])]
        # In its own session, so that Slurm's signals reach submitit first.
        self._process = process = subprocess.Popen(command, start_new_session=True)
        # submitit ignores TERM, and Slurm does not signal the process; submitit handles USR2, Slurm's warning.
        for number in (signal.SIGTERM, signal.SIGHUP):
            if self._launched.run and number in wanted_signals():
                signal.signal(number, self._ask)
        try:
            while not self._has_ended():
                time.sleep(_POLL_SECONDS)
        finally:
            # submitit leaves this function by an exception when it has requeued the job.
            process.kill()
        code = process.wait()
        # Before preempting nodes, Slurm may signal only the ranks. User errors and bugs would only happen again.
        if self._launched.run and code not in (MISTAKE, FAULT) and (code != 0 or not self._has_finished()):
            self._go_on(code)
        if code != 0:
            raise RuntimeError(f"sgloc {self._launched.name} ended with exit code {code}")

    def checkpoint(self, share: str = "") -> submitit.helpers.DelayedSubmission | None:
        """Have the process save and exit; return the submission to requeue, or None if nothing can be saved."""
        end = time.monotonic() + _SAVING_SECONDS
        # Repeat the signal, because the process may not have handlers yet. A hang must not prevent the requeue.
        while not self._has_ended() and time.monotonic() < end:
            self._ask()
            time.sleep(_POLL_SECONDS)
        is_late = time.monotonic() - self._start > _START_SECONDS
        if self._launched.run and is_late and self._newest() == self._at_start:
            return None
        return submitit.helpers.DelayedSubmission(Task(self._launched), *([share] if share else []))

    def _ask(self, number: int = 0, frame: FrameType | None = None) -> None:
        if not self._has_ended():
            assert self._process is not None
            os.kill(self._process.pid, signal.SIGUSR1 if self._launched.run else signal.SIGTERM)

    def _has_ended(self) -> bool:
        if self._process is None:
            return True
        try:
            # Popen.poll takes a lock, on which a signal handler would deadlock.
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _newest(self) -> str:
        """Return the run's newest checkpoint; empty if there is none."""
        if not self._launched.run:
            return ""
        try:
            return self._listed("--newest").stdout.strip()
        except subprocess.TimeoutExpired:
            return ""

    def _has_finished(self) -> bool:
        """Return whether training has finished, and not just stopped."""
        done = self._listed("--finished")
        # Exit code 2: the run has no checkpoint, because it was stopped before the first.
        if done.returncode not in (0, PASSING, MISTAKE):
            raise RuntimeError(f"sgloc checkpoint list ended with exit code {done.returncode}: {done.stderr}")
        return done.returncode == 0

    def _listed(self, what: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "sgloc", "checkpoint", "list", self._launched.run, what]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_STORE_SECONDS)

    def _go_on(self, code: int) -> None:
        """Requeue the job, once for all ranks; after a failure only if the run has a new checkpoint."""
        if not self._leads:
            # A rank that exits now ends all others, including rank 0 before it has decided.
            time.sleep(_VERDICT_SECONDS + (self._launched.timeout if code else 0))
        elif code == 0 or self._newest() != self._at_start:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
            # Slurm ends this process meanwhile.
            time.sleep(_VERDICT_SECONDS)
