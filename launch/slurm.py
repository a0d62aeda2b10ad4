"""Trains on a Slurm cluster through submitit: what `slurm/train.sh` does, from Python.

`python -m launch.slurm --config configs/all345.yaml --nodes 4 --gpus-per-node 8` submits a job in which each task is
one rank. Stopped by its time limit, by another job or by the loss of a node, it is queued again and goes on from where
it was. All other options are those of `sgloc train`.
"""

import argparse
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import submitit

from launch.local import rank_command
from launch.options import check, split
from launch.submit import exit_code, failure, submit, wait
from sgloc.faults import FAULT, INTERRUPTED, MISTAKE, PASSING
from sgloc.masking import mask
from sgloc.program import debugging, run_program, tell
from sgloc.signals import wanted_signals

# Slurm's warning comes so many seconds before the time is up; saving is to take less.
_WARNING_SECONDS = 120
_SAVING_SECONDS = 100.0
# A shorter time limit leaves little between the start and the warning, which may come a minute early.
_LEAST_MINUTES = 10
# Who is stopped so late and has saved nothing cannot save.
_START_SECONDS = 300.0
_POLL_SECONDS = 0.5
# What a store may take to tell of checkpoints.
_STORE_SECONDS = 120.0
# How much longer than training itself the other ranks wait for rank 0 to say what a failure means.
_VERDICT_SECONDS = 60.0
_NAME = "launch.slurm"
# What `sgloc train` begins its errors with.
_ERROR = "sgloc train: "


class Rank:
    """A task of the job: one rank of `sgloc train`.

    Args:
        words: options of `sgloc train`.
        run_dir: of the run.
        timeout: seconds after which ranks have noticed that another one is gone.
    """

    def __init__(self, words: Sequence[str], run_dir: str, timeout: float) -> None:
        self.words, self.run_dir, self.timeout = list(words), run_dir, timeout
        # Slurm may end it before it begins.
        self._process: subprocess.Popen[bytes] | None = None
        self._start, self._at_start, self._leads = math.inf, "", False

    def __call__(self) -> None:
        """Train to the end.

        Raises:
            RuntimeError: if that fails.
        """
        self._start, self._leads = time.monotonic(), os.environ["SLURM_PROCID"] == "0"
        self._at_start = self._newest() if self._leads else ""
        # In a session of its own, so that what Slurm says goes to submitit first.
        self._process = process = subprocess.Popen(rank_command(self.words), start_new_session=True)
        # submitit ignores TERM, and Slurm does not tell the rank; USR2 is Slurm's warning, of which submitit tells.
        for number in (signal.SIGTERM, signal.SIGHUP):
            if number in wanted_signals():
                signal.signal(number, self._ask)
        try:
            while not self._has_ended():
                time.sleep(_POLL_SECONDS)
        finally:
            # submitit leaves by an exception when it has queued the job again.
            process.kill()
        code = process.wait()
        if code != 0:
            # A mistake, or a fault of the program, would come again.
            if code not in (MISTAKE, FAULT):
                self._judge()
            raise RuntimeError(f"sgloc train ended with exit code {code}")
        # Before Slurm takes nodes away, it may tell the ranks alone to end.
        if not self._has_finished():
            self._requeue()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:
        """Have the ranks save and end; gives what submitit queues again, unless nothing can be saved."""
        end = time.monotonic() + _SAVING_SECONDS
        # Again and again: it may not have listened yet. Whatever hangs is not to keep the job from being queued.
        while not self._has_ended() and time.monotonic() < end:
            self._ask()
            time.sleep(_POLL_SECONDS)
        if time.monotonic() - self._start > _START_SECONDS and self._newest() == self._at_start:
            return None
        return submitit.helpers.DelayedSubmission(Rank(self.words, self.run_dir, self.timeout))

    def _ask(self, number: int = 0, frame: FrameType | None = None) -> None:
        if not self._has_ended():
            assert self._process is not None
            os.kill(self._process.pid, signal.SIGUSR1)

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
        command = [sys.executable, "-m", "sgloc", "checkpoint", "list", self.run_dir, "--newest"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_STORE_SECONDS)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout.strip()

    def _judge(self) -> None:
        """After a failure, have the job queued again if it came to a new checkpoint; else come back."""
        if not self._leads:
            # Whoever ends now takes all others along, rank 0 before it has judged.
            time.sleep(self.timeout + _VERDICT_SECONDS)
        elif self._newest() != self._at_start:
            self._requeue()

    def _has_finished(self) -> bool:
        """Whether training is done, and not only stopped."""
        command = [sys.executable, "-m", "sgloc", "checkpoint", "list", self.run_dir, "--finished"]
        code = subprocess.run(command, check=False, timeout=_STORE_SECONDS).returncode
        if code not in (0, PASSING):
            raise RuntimeError(f"sgloc checkpoint list ended with exit code {code}")
        return code == 0

    def _requeue(self) -> None:
        """Have Slurm end the job and queue it again, once for all ranks."""
        if self._leads:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        # Slurm ends this.
        time.sleep(_VERDICT_SECONDS)


def _parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m launch.slurm",
        usage="%(prog)s --nodes N --gpus-per-node N [options] --config FILE [options of `sgloc train`]",
        description="Train on a Slurm cluster.",
        epilog="All other options are those of `sgloc train`; see `sgloc train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--gpus-per-node", type=int, default=0, help="of each machine")
    parser.add_argument("--processes-per-node", type=int, default=0, help="default: one a GPU, or 1")
    parser.add_argument("--cpus-per-process", type=int, default=4, help="cores of each rank")
    parser.add_argument("--memory-per-cpu", type=int, default=0, help="in GB; default: the cluster's default")
    parser.add_argument("--partition", default="", help="of the cluster; default: its default")
    parser.add_argument("--minutes", type=int, default=1440, help="after which the job is queued again and goes on")
    parser.add_argument("--folder", default="slurm-logs", help="folder for logs, seen by all nodes")
    parser.add_argument(
        "--slurm", action="append", default=[], metavar="NAME=VALUE", help="any other option of sbatch, like account=me"
    )
    parser.add_argument("--wait", action="store_true", help="stay until the job has ended, and tell how")
    options, others = split(parser, words, counts=("nodes", "cpus_per_process"))
    for name in ("gpus_per_node", "processes_per_node", "memory_per_cpu"):
        if getattr(options, name) < 0:
            parser.error(f"--{name.replace('_', '-')} must be at least 0, not {getattr(options, name)}")
    if options.minutes < _LEAST_MINUTES:
        parser.error(
            f"--minutes must be at least {_LEAST_MINUTES}, not {options.minutes}; "
            f"a run is told to save {_WARNING_SECONDS} seconds before they are over, and queued again"
        )
    for setting in options.slurm:
        if not all(setting.partition("=")):
            parser.error(f"--slurm takes NAME=VALUE, not {setting!r}")
    return options, others


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """What submitit is to ask Slurm for."""
    additional: dict[str, Any] = {"requeue": True, **dict(setting.split("=", 1) for setting in options.slurm)}
    if options.memory_per_cpu:
        additional["mem-per-cpu"] = f"{options.memory_per_cpu}G"
    parameters: dict[str, Any] = {
        "name": "sgloc-train",
        "timeout_min": options.minutes,
        "nodes": options.nodes,
        "tasks_per_node": options.processes_per_node or options.gpus_per_node or 1,
        "cpus_per_task": options.cpus_per_process,
        "slurm_signal_delay_s": _WARNING_SECONDS,
        # Of the job's processors, srun takes one a task unless told. A rank that fails takes all along.
        "slurm_srun_args": [f"--cpus-per-task={options.cpus_per_process}", "--kill-on-bad-exit=1"],
        "slurm_setup": [f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{options.cpus_per_process}}}"],
        "slurm_additional_parameters": additional,
    }
    if options.gpus_per_node:
        parameters["slurm_gpus_per_node"] = options.gpus_per_node
    if options.partition:
        parameters["slurm_partition"] = options.partition
    return parameters


def main(arguments: Sequence[str]) -> int:
    """Submit, and wait if asked; gives the exit code: 0, that of training if the job failed, 2 for a mistake."""
    options, words = _parse(list(arguments))
    config = check(words, data=False)
    if debugging():
        words.append("--debug")
    failures: list[str] = []
    code = 0

    def take(_: int, has_result: bool) -> None:
        nonlocal code
        reason = failure(job.task(0), has_result, _ERROR)
        if reason is not None:
            code = exit_code(job.task(0), has_result)
            failures.append(f"{reason} (log: {job.paths.stderr})")

    try:
        rank = Rank(words, config.train.run, config.train.timeout)
        job = submit(options.folder, "slurm", _parameters(options), lambda executor: executor.submit(rank))
        print(f"submitted {job.job_id}; logs in {options.folder}, run in {mask(config.train.run)}", flush=True)
        if options.wait:
            wait([job.task(0)], take)
            print(failures[0] if failures else "done", flush=True)
    except KeyboardInterrupt:
        tell(_NAME, "no longer waiting; what was submitted goes on")
        return INTERRUPTED
    return code


if __name__ == "__main__":
    run_program(_NAME, main)
