"""Builds shards on a Slurm cluster through submitit: what `slurm/shard.sh` does, with waiting and a report.

`python -m launch.slurm_shard --tasks 16 --folder logs -- --source quickdraw:simplified --out /scratch/shards` submits
an array of which each task builds its share, and tells how each ended. What follows the `--` are options of `sgloc
shard`. Started again, it builds what is missing. `--cluster local` runs the tasks as processes of this machine.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from sgloc.errors import SglocError

_POLL_SECONDS = 2.0
# The result of a task that has ended may be seen only so much later, on a file system that caches.
_RESULT_SECONDS = 30.0
# For so long Slurm may not answer.
_ANSWER_SECONDS = 600.0
_STOP_SECONDS = 20.0
# What `sgloc shard` begins its errors with.
_ERROR = "sgloc shard: "


class LaunchError(SglocError):
    """Why tasks cannot be submitted or waited for."""


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


def submit(options: argparse.Namespace, words: Sequence[str]) -> list[Any]:
    """Submit the tasks; gives submitit's jobs.

    Raises:
        LaunchError: if that fails.
    """
    try:
        executor = submitit.AutoExecutor(options.folder, cluster=None if options.cluster == "auto" else options.cluster)
        executor.update_parameters(
            name="sgloc-shard",
            timeout_min=options.minutes,
            cpus_per_task=options.workers,
            mem_gb=options.memory,
            slurm_array_parallelism=options.tasks,
            # Of the job's processors, srun takes one unless told.
            slurm_srun_args=[f"--cpus-per-task={options.workers}"],
            slurm_additional_parameters={"requeue": True},
            **({"slurm_partition": options.partition} if options.partition else {}),
        )
        tasks = [f"{number}/{options.tasks}" for number in range(options.tasks)]
        return list(executor.map_array(ShardTask(words, options.workers), tasks))
    except (FailedJobError, FailedSubmissionError, RuntimeError, OSError) as error:
        raise LaunchError(f"the tasks cannot be submitted: {error}") from error


def wait(jobs: Sequence[Any], told: Callable[[int, str | None], None]) -> None:
    """Wait until all tasks have ended.

    submitit asks Slurm's accounting, and would wait for ever for a killed task where there is none; so the queue is
    asked here.

    Args:
        jobs: submitit's, one a task.
        told: takes a task's number and what went wrong, or None, when it has ended.

    Raises:
        LaunchError: if Slurm does not answer.
    """
    pending = dict(enumerate(jobs))
    missing_since: dict[int, float] = {}
    answered = time.monotonic()
    while pending:
        queued = _queued(list(pending.values()))
        now = time.monotonic()
        if queued is not None:
            answered = now
        elif now - answered > _ANSWER_SECONDS:
            raise LaunchError(f"squeue fails for {_ANSWER_SECONDS:.0f} s; ask your cluster what became of the tasks")
        for number, job in list(pending.items()):
            if job.paths.result_pickle.exists():
                told(number, _failure(job))
                del pending[number]
            elif queued is None or job.job_id in queued:
                missing_since.pop(number, None)
            elif now - missing_since.setdefault(number, now) >= _RESULT_SECONDS or _is_local(job):
                told(number, "it was killed")
                del pending[number]
        if pending:
            time.sleep(_POLL_SECONDS)


def _is_local(job: Any) -> bool:
    return isinstance(job, submitit.LocalJob)


def _queued(jobs: Sequence[Any]) -> set[str] | None:
    """The ids of the jobs that are running or are to run; None if that cannot be told."""
    if _is_local(jobs[0]):
        return {job.job_id for job in jobs if not job.done()}
    arrays = sorted({job.job_id.partition("_")[0] for job in jobs})
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(arrays)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode == 0:
        return set(done.stdout.split())
    # That is what it says of jobs that ended long ago.
    return set() if "Invalid job id" in done.stderr else None


def _failure(job: Any) -> str | None:
    """What went wrong in a task that has ended, or None."""
    error = job.exception()
    if error is None:
        return None
    told = [line for line in (job.stderr() or "").splitlines() if line.startswith(_ERROR)]
    return told[-1] if told else "it ended with an error"


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit, wait and report; gives the exit code: 0 if all tasks are done, 1 if one failed, 2 for a mistake."""
    options, words = _parse(list(sys.argv[1:] if arguments is None else arguments))
    failed: list[int] = []

    def tell(number: int, failure: str | None) -> None:
        if failure is not None:
            failed.append(number)
        outcome = "done" if failure is None else f"{failure} (log: {jobs[number].paths.stderr})"
        print(f"task {number}/{options.tasks}: {outcome}", flush=True)

    try:
        jobs = submit(options, words)
        print(f"submitted {', '.join(job.job_id for job in jobs)}; logs in {options.folder}", flush=True)
        if not options.no_wait:
            wait(jobs, tell)
    except LaunchError as error:
        print(f"slurm_shard: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("slurm_shard: no longer waiting; what was submitted goes on", file=sys.stderr)
        return 130
    if failed:
        print(f"{len(failed)} of {options.tasks} tasks failed; give the same command again to build what is missing")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
