"""Builds shards on a Slurm cluster through submitit: what `slurm/shard.sh` does, with waiting and a report.

`python -m launch.slurm_shard --tasks 16 --folder logs -- --source quickdraw:simplified --out /scratch/shards` submits
an array of which each task builds its share, and tells how each ended. What follows the `--` are options of `sgloc
shard`. Started again, it builds what is missing. `--cluster local` runs the tasks as processes of this machine.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import submitit

from launch.submit import exit_code, failure, submit, wait
from sgloc.faults import INTERRUPTED
from sgloc.program import debugging, run_program, tell

_NAME = "slurm_shard"
_STOP_SECONDS = 20.0
# What `sgloc shard` begins its errors with.
_ERROR = "sgloc shard: "


class ShardTask:
    """A function of the task, like "3/16": `sgloc shard` on its share.

    Args:
        words: options of `sgloc shard`.
        num_workers: processes.
    """

    def __init__(self, words: Sequence[str], num_workers: int) -> None:
        self.words, self.num_workers = list(words), num_workers

    def __call__(self, task: str) -> None:
        """Run it.

        Raises:
            RuntimeError: if it fails.
        """
        command = [sys.executable, "-m", "sgloc", "shard", *self.words, "--task", task]
        # In a session of its own: Slurm's warning that the time is up is for submitit, and would kill the command.
        process = subprocess.Popen([*command, "--workers", str(self.num_workers)], start_new_session=True)
        try:
            code = process.wait()
        finally:
            # submitit leaves by an exception when it has requeued the task.
            _stop(process)
        if code != 0:
            raise RuntimeError(f"sgloc shard ended with exit code {code}")

    def checkpoint(self, task: str) -> submitit.helpers.DelayedSubmission:
        """What submitit requeues when the time is up or the task is preempted: the same, which goes on from there."""
        return submitit.helpers.DelayedSubmission(ShardTask(self.words, self.num_workers), task)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """What submitit is to ask for."""
    return {
        "name": "sgloc-shard",
        "timeout_min": options.minutes,
        "cpus_per_task": options.workers,
        "mem_gb": options.memory,
        "slurm_array_parallelism": options.tasks,
        # Of the job's processors, srun takes one unless told.
        "slurm_srun_args": [f"--cpus-per-task={options.workers}"],
        "slurm_additional_parameters": {"requeue": True},
        **({"slurm_partition": options.partition} if options.partition else {}),
    }


def _parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m launch.slurm_shard",
        usage="%(prog)s --tasks N --folder FOLDER [options] -- --source ... --out ... [options of `sgloc shard`]",
        description="Build shards as an array of Slurm tasks.",
        allow_abbrev=False,
    )
    parser.add_argument("--tasks", type=int, required=True, help="in how many shares to build")
    parser.add_argument("--folder", required=True, help="folder for logs, seen by all nodes")
    parser.add_argument("--cluster", choices=["auto", "slurm", "local"], default="auto", help="local: this machine")
    parser.add_argument("--partition", default="", help="of the cluster; default: its default")
    parser.add_argument("--workers", type=int, default=4, help="processes of a task")
    parser.add_argument("--memory", type=int, default=8, help="of a task, in GB")
    parser.add_argument("--minutes", type=int, default=720, help="of a task, after which it is requeued and goes on")
    parser.add_argument("--no_wait", action="store_true", help="submit only")
    end = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:end])
    after = words[end + 1 :]
    if not after:
        parser.error("the options of `sgloc shard` are missing; give them after --")
    for name in ("tasks", "workers", "memory", "minutes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(options, name)}")
    return options, after


def main(arguments: Sequence[str]) -> int:
    """Submit, wait and report; gives the exit code: 0 if all tasks are done, else the highest of theirs; 2 for a
    mistake."""
    options, words = _parse(list(arguments))
    if debugging():
        words.append("--debug")
    codes: list[int] = []

    def take(number: int, has_result: bool) -> None:
        reason = failure(jobs[number], has_result, _ERROR)
        if reason is not None:
            codes.append(exit_code(jobs[number], has_result))
        outcome = "done" if reason is None else f"{reason} (log: {jobs[number].paths.stderr})"
        print(f"task {number}/{options.tasks}: {outcome}", flush=True)

    try:
        task = ShardTask(words, options.workers)
        shares = [f"{number}/{options.tasks}" for number in range(options.tasks)]
        jobs = submit(
            options.folder, options.cluster, _parameters(options), lambda executor: executor.map_array(task, shares)
        )
        print(f"submitted {', '.join(job.job_id for job in jobs)}; logs in {options.folder}", flush=True)
        if not options.no_wait:
            wait(jobs, take)
    except KeyboardInterrupt:
        tell(_NAME, "no longer waiting; what was submitted goes on")
        return INTERRUPTED
    if codes:
        print(f"{len(codes)} of {options.tasks} tasks failed; give the same command again to build what is missing")
    return max(codes, default=0)


if __name__ == "__main__":
    run_program(_NAME, main)
