"""Submitting tasks through submitit, and waiting for them."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from sgloc.errors import SglocError
from sgloc.faults import PASSING

_POLL_SECONDS = 2.0
# How long after a task has ended its result may become visible on a caching file system.
_RESULT_SECONDS = 30.0
# How long squeue may fail before giving up.
_ANSWER_SECONDS = 600.0
# Allow many requeues: a month of training is requeued every day.
_MOST_TIMEOUTS = 1000


class LaunchError(SglocError):
    """Tasks cannot be submitted or waited for."""


def submit(
    folder: str, cluster: str, parameters: Mapping[str, Any], task: Callable[..., None], shares: Sequence[str]
) -> list[Any]:
    """Submit a job, or an array of tasks, to Slurm or to processes on this machine.

    Args:
        folder: folder for logs, visible to all nodes.
        cluster: "auto", "slurm" or "local".
        parameters: submitit's parameters.
        task: the function to run.
        shares: argument of each array task; empty for a single job.

    Returns:
        The array's jobs; for a single job, its first task.

    Raises:
        LaunchError: if the submission fails.
    """
    try:
        executor = submitit.AutoExecutor(
            folder, cluster=None if cluster == "auto" else cluster, slurm_max_num_timeout=_MOST_TIMEOUTS
        )
        executor.update_parameters(**parameters)
        return executor.map_array(task, shares) if shares else [executor.submit(task).task(0)]
    except (FailedJobError, FailedSubmissionError, RuntimeError, OSError) as error:
        raise LaunchError(f"the tasks cannot be submitted: {error}") from error


def ended(jobs: Sequence[Any]) -> Iterator[tuple[int, bool]]:
    """Wait until all jobs have ended.

    submitit relies on Slurm's accounting, and without accounting would wait forever for a killed job; this function
    asks squeue instead.

    Args:
        jobs: submitit's jobs.

    Yields:
        The index of a job that has ended, and whether it has a result.

    Raises:
        LaunchError: if squeue keeps failing.
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
            lost = LaunchError(f"squeue has failed for {_ANSWER_SECONDS:.0f} s; check the tasks' state on the cluster")
            lost.exit_code = PASSING
            raise lost
        for number, job in list(pending.items()):
            has_result = job.paths.result_pickle.exists()
            if not has_result and (queued is None or job.job_id in queued):
                missing_since.pop(number, None)
            elif has_result or _is_local(job) or now - missing_since.setdefault(number, now) >= _RESULT_SECONDS:
                del pending[number]
                yield number, has_result
        if pending:
            time.sleep(_POLL_SECONDS)


def failure(job: Any, has_result: bool, command: str) -> tuple[str, int] | None:
    """Return the error message and exit code of a job or task that has ended; None if it succeeded.

    Args:
        job: submitit's job.
        has_result: whether the job has a result.
        command: the `sgloc` command that it ran.
    """
    if not has_result:
        return "it was killed", PASSING
    error = job.exception()
    if error is None:
        return None
    # Matches both text and JSON log lines.
    told = re.findall(rf'sgloc {command}: [^"\n]*', job.stderr() or "")
    code = re.search(r"ended with exit code (\d+)", str(error))
    return told[-1] if told else "it ended with an error", int(code[1]) if code else PASSING


def _is_local(job: Any) -> bool:
    return isinstance(job, submitit.LocalJob)


def _queued(jobs: Sequence[Any]) -> set[str] | None:
    """Return the ids of the jobs that are running or pending; None if squeue fails."""
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
    # squeue prints this for jobs that ended long ago.
    return set() if "Invalid job id" in done.stderr else None
