"""Starts a command of `sgloc` on a Slurm cluster through submitit.

`python -m launch.slurm --nodes 4 --gpus_per_node 8 train --config configs/all345.yaml` submits a job in which each task
is one rank, as `slurm/train.sh` does. Stopped by its time limit, by another job or by the loss of a node, it is queued
again and goes on from where it was.

`python -m launch.slurm --tasks 16 --wait shard --source quickdraw:simplified --out /scratch/shards` submits an array of
which each task builds its share, and tells how each ended. Started again, it builds what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from launch.command import Launched, read_command
from launch.job import WARNING_SECONDS, Task
from launch.submit import exit_code, failure, submit, wait
from sgloc.cli.options import Reader
from sgloc.errors import ConfigError, UsageError
from sgloc.faults import INTERRUPTED
from sgloc.masking import mask
from sgloc.program import run_program, tell

# A shorter time limit leaves little between the start and the warning, which may come a minute early.
_LEAST_MINUTES = 10
_NAME = "launch.slurm"


@dataclass(frozen=True)
class SlurmOptions:
    """What to ask Slurm for."""

    nodes: int = 1
    """Machines."""
    gpus_per_node: int = 0
    """GPUs of each machine."""
    processes_per_node: int = 0
    """Ranks on each machine; 0: one a GPU, or 1."""
    cpus_per_process: int = 4
    """Cores of each rank; of each task of an array, which builds in as many processes."""
    memory_per_cpu: int = 0
    """In GB; 0: the cluster's default."""
    partition: str = ""
    """Of the cluster; default: its default."""
    minutes: int = 1440
    """Time after which a job is queued again and goes on."""
    tasks: int = 0
    """Shares in which an array builds shards; 0: a job and no array."""
    logs: str = "slurm-logs"
    """Folder for logs, seen by all nodes."""
    slurm: list[str] = field(default_factory=list)
    """NAME=VALUE: any other option of sbatch, like account=me; may be given several times."""
    cluster: Literal["auto", "slurm", "local"] = "auto"
    """local: processes of this machine in place of jobs."""
    wait: bool = False
    """Stay until all has ended, and tell how."""

    def __post_init__(self) -> None:
        for names, least in (
            (("nodes", "cpus_per_process"), 1),
            (("gpus_per_node", "processes_per_node", "memory_per_cpu", "tasks"), 0),
        ):
            for name in names:
                if getattr(self, name) < least:
                    raise ConfigError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.minutes < _LEAST_MINUTES:
            raise ConfigError(
                f"minutes must be at least {_LEAST_MINUTES}, not {self.minutes}; "
                f"a run is asked to save {WARNING_SECONDS} seconds before they are over, and queued again"
            )
        for setting in self.slurm:
            if not all(setting.partition("=")):
                raise ConfigError(f"slurm takes NAME=VALUE, not {setting!r}")


def _parameters(options: SlurmOptions, name: str) -> dict[str, Any]:
    """What submitit is to ask Slurm for."""
    additional: dict[str, Any] = {"requeue": True, **dict(setting.split("=", 1) for setting in options.slurm)}
    if options.memory_per_cpu:
        additional["mem-per-cpu"] = f"{options.memory_per_cpu}G"
    parameters: dict[str, Any] = {
        "name": f"sgloc-{name.replace(' ', '-')}",
        "timeout_min": options.minutes,
        "nodes": options.nodes,
        "tasks_per_node": options.processes_per_node or options.gpus_per_node or 1,
        "cpus_per_task": options.cpus_per_process,
        "slurm_signal_delay_s": WARNING_SECONDS,
        # Of the job's processors, srun takes one a task unless told. A rank that fails takes all along.
        "slurm_srun_args": [f"--cpus-per-task={options.cpus_per_process}", "--kill-on-bad-exit=1"],
        "slurm_setup": [f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{options.cpus_per_process}}}"],
        "slurm_additional_parameters": additional,
    }
    if options.tasks:
        parameters["slurm_array_parallelism"] = options.tasks
    if options.gpus_per_node:
        parameters["slurm_gpus_per_node"] = options.gpus_per_node
    if options.partition:
        parameters["slurm_partition"] = options.partition
    return parameters


def _shares(options: SlurmOptions, launched: Launched) -> tuple[Launched, list[str]]:
    """The command of each task of an array, and the shares; none for a job that is no array.

    Raises:
        UsageError: if the command has no shares.
    """
    if not options.tasks:
        return launched, []
    if launched.name != "shard":
        raise UsageError(f"--tasks are those of `sgloc shard`; leave it out to start `sgloc {launched.name}`")
    workers = ("--workers", str(options.cpus_per_process))
    return replace(launched, options=[*launched.options, *workers]), [
        f"{number}/{options.tasks}" for number in range(options.tasks)
    ]


def main(arguments: Sequence[str]) -> int:
    """Submit, and wait if asked; gives the exit code: 0, the highest of the jobs that failed, or 2 for a mistake."""
    reader = Reader(f"python -m {_NAME}", SlurmOptions, description=__doc__ or "", starts_command=True)
    (options,), words = reader.read_until_word(arguments)
    launched, shares = _shares(options, read_command(words, check_data=False))
    codes: list[int] = []

    def take(number: int, has_result: bool) -> None:
        reason = failure(jobs[number], has_result, launched.name)
        if reason is not None:
            codes.append(exit_code(jobs[number], has_result))
        outcome = "done" if reason is None else f"{reason} (log: {jobs[number].paths.stderr})"
        print(f"task {shares[number]}: {outcome}" if shares else outcome, flush=True)

    try:
        jobs = submit(options.logs, options.cluster, _parameters(options, launched.name), Task(launched), shares)
        run = f", run in {mask(launched.run)}" if launched.run else ""
        print(f"submitted {', '.join(job.job_id for job in jobs)}; logs in {options.logs}{run}", flush=True)
        if options.wait:
            wait(jobs, take)
    except KeyboardInterrupt:
        tell(_NAME, "no longer waiting; what was submitted goes on")
        return INTERRUPTED
    if codes and shares:
        print(f"{len(codes)} of {len(shares)} tasks failed; give the same command again to build what is missing")
    return max(codes, default=0)


if __name__ == "__main__":
    run_program(_NAME, main)
