"""What is submitted through submitit: how, and what becomes of it."""

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
# The result of a task that has ended may be seen only so much later, on a file system that caches.
_RESULT_SECONDS = 30.0
# For so long Slurm may not answer.
_ANSWER_SECONDS = 600.0
# Training for a month is queued again a day after the other.
_MOST_TIMEOUTS = 1000


class LaunchError(SglocError):
    """Why tasks cannot be submitted or waited for."""


def submit(
    folder: str, cluster: str, parameters: Mapping[str, Any], task: Callable[..., None], shares: Sequence[str]
) -> list[Any]:
    """Submit a task to Slurm, or to processes of this machine; or an array of it.

    Args:
        folder: for logs, seen by all nodes.
        cluster: "auto", "slurm" or "local".
        parameters: submitit's.
        task: what to run.
        shares: what each task of an array is given; empty: no array.

    Returns:
        The jobs, or, of a job of several tasks, the first of these.

    Raises:
        LaunchError: if that fails.
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

    submitit asks Slurm's accounting, and would wait for ever for a killed job where there is none; so the queue is
    asked here.

    Args:
        jobs: submitit's.

    Yields:
        A job's place among them when it has ended, and whether there is a result.

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
            lost = LaunchError(f"squeue fails for {_ANSWER_SECONDS:.0f} s; ask your cluster what became of the tasks")
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
    """What went wrong in a job, or a task of one, that has ended, and the exit code; None: nothing.

    Args:
        job: submitit's.
        has_result: whether it has a result.
        command: of `sgloc`, which it ran.
    """
    if not has_result:
        return "it was killed", PASSING
    error = job.exception()
    if error is None:
        return None
    # Whether its lines are text or JSON.
    told = re.findall(rf'sgloc {command}: [^"\n]*', job.stderr() or "")
    code = re.search(r"ended with exit code (\d+)", str(error))
    return told[-1] if told else "it ended with an error", int(code[1]) if code else PASSING


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
