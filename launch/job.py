"""A task of a Slurm job, which submitit runs: a process of a command, stopped in time, judged, and queued again."""

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

# Slurm's warning comes so many seconds before the time is up; saving is to take less.
WARNING_SECONDS = 120
_SAVING_SECONDS = 100.0
# A job stopped this late without a new checkpoint will never manage to save one.
_START_SECONDS = 300.0
_POLL_SECONDS = 0.5
# What a store may take to tell of checkpoints.
_STORE_SECONDS = 120.0
# What a process that Slurm has ended exits with, as Python gives it and as a shell does.
_ENDED_BY_SLURM = tuple(code for number in (signal.SIGTERM, signal.SIGKILL) for code in (-number, 128 + number))
# How much longer than training itself the other ranks wait for rank 0 to say what a failure means.
_VERDICT_SECONDS = 60.0


class Task:
    """A function of the share of a build, such as "3/16", or of nothing: runs a process of a command to its end.

    Args:
        launched: the command.
    """

    def __init__(self, launched: Launched) -> None:
        self._launched = launched
        # Slurm may end it before it begins.
        self._process: subprocess.Popen[bytes] | None = None
        self._start, self._at_start, self._leads = math.inf, "", False

    def __call__(self, share: str = "") -> None:
        """Run it.

        Raises:
            RuntimeError: if it fails.
        """
        try:
            self._run(share)
        except subprocess.CalledProcessError as error:
            # Slurm ends a job as soon as it is queued again, and scontrol with it; submitit would take the error for
            # the job's result. A site's scontrol may be a shell script, which exits with 128 + the signal.
            if error.returncode not in _ENDED_BY_SLURM:
                raise
            sys.exit(PASSING)

    def _run(self, share: str) -> None:
        self._start, self._leads = time.monotonic(), os.environ.get("SLURM_PROCID", "0") == "0"
        self._at_start = self._newest() if self._leads else ""
        command = [*self._launched.process(), *(["--task", share] if share else [])]
        # In a session of its own, so that what Slurm says goes to submitit first.
        self._process = process = subprocess.Popen(command, start_new_session=True)
        # submitit ignores TERM, and Slurm does not tell the process; USR2 is Slurm's warning, of which submitit tells.
        for number in (signal.SIGTERM, signal.SIGHUP):
            if self._launched.run and number in wanted_signals():
                signal.signal(number, self._ask)
        try:
            while not self._has_ended():
                time.sleep(_POLL_SECONDS)
        finally:
            # submitit leaves by an exception when it has queued the job again.
            process.kill()
        code = process.wait()
        # Before Slurm takes nodes away, it may ask the ranks alone to end. A mistake, or a fault of the program, would
        # come again.
        if self._launched.run and code not in (MISTAKE, FAULT) and (code != 0 or not self._has_finished()):
            self._go_on(code)
        if code != 0:
            raise RuntimeError(f"sgloc {self._launched.name} ended with exit code {code}")

    def checkpoint(self, share: str = "") -> submitit.helpers.DelayedSubmission | None:
        """Have the process save and end; gives what submitit queues again, unless nothing can be saved."""
        end = time.monotonic() + _SAVING_SECONDS
        # Again and again: it may not have listened yet. Whatever hangs is not to keep the job from being queued.
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
            # Popen's own ways hold a lock, which a signal's handler would wait for.
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _newest(self) -> str:
        """The run's newest checkpoint; empty when there is none."""
        if not self._launched.run:
            return ""
        try:
            return self._listed("--newest").stdout.strip()
        except subprocess.TimeoutExpired:
            return ""

    def _has_finished(self) -> bool:
        """Whether training is done, and not only stopped."""
        done = self._listed("--finished")
        # Stopped before there was a checkpoint, it has none, of which 2 tells.
        if done.returncode not in (0, PASSING, MISTAKE):
            raise RuntimeError(f"sgloc checkpoint list ended with exit code {done.returncode}: {done.stderr}")
        return done.returncode == 0

    def _listed(self, what: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "sgloc", "checkpoint", "list", self._launched.run, what]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_STORE_SECONDS)

    def _go_on(self, code: int) -> None:
        """Have Slurm end the job and queue it again, once for all ranks; after a failure only if the run came to a new
        checkpoint."""
        if not self._leads:
            # Whoever ends now takes all others along, rank 0 before it has judged.
            time.sleep(_VERDICT_SECONDS + (self._launched.timeout if code else 0))
        elif code == 0 or self._newest() != self._at_start:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
            # Slurm ends this.
            time.sleep(_VERDICT_SECONDS)
