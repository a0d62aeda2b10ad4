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
from launch.submit import ended, failure, submit
from sgloc.cli.options import Reader
from sgloc.config import Options, option
from sgloc.errors import ConfigError, UsageError
from sgloc.faults import INTERRUPTED
from sgloc.masking import mask
from sgloc.program import run_program, tell

# A shorter time limit leaves little between the start and the warning, which may come a minute early.
_LEAST_MINUTES = 10
_NAME = "launch.slurm"


@dataclass(frozen=True)
class SlurmOptions(Options):
    """What to ask Slurm for."""

    nodes: int = option(1, at_least=1)
    """Machines."""
    gpus_per_node: int = option(0, at_least=0)
    """GPUs of each machine."""
    processes_per_node: int = option(0, at_least=0)
    """Ranks on each machine; 0: one a GPU, or 1."""
    cpus_per_process: int = option(4, at_least=1)
    """Cores of each rank; of each task of an array, which builds in as many processes."""
    memory_per_cpu: int = option(0, at_least=0)
    """In GB; 0: the cluster's default."""
    partition: str = ""
    """Of the cluster; default: its default."""
    minutes: int = 1440
    """Time after which a job is queued again and goes on."""
    tasks: int = option(0, at_least=0)
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
        super().__post_init__()
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
    additional = {
        "requeue": True,
        "partition": options.partition,
        "gpus-per-node": options.gpus_per_node,
        "mem-per-cpu": options.memory_per_cpu and f"{options.memory_per_cpu}G",
        **dict(setting.split("=", 1) for setting in options.slurm),
    }
    return {
        "name": f"sgloc-{name.replace(' ', '-')}",
        "timeout_min": options.minutes,
        "nodes": options.nodes,
        "tasks_per_node": options.processes_per_node or options.gpus_per_node or 1,
        "cpus_per_task": options.cpus_per_process,
        "slurm_array_parallelism": options.tasks or 1,
        "slurm_signal_delay_s": WARNING_SECONDS,
        # Of the job's processors, srun takes one a task unless told. A rank that fails takes all along.
        "slurm_srun_args": [f"--cpus-per-task={options.cpus_per_process}", "--kill-on-bad-exit=1"],
        "slurm_setup": [f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{options.cpus_per_process}}}"],
        "slurm_additional_parameters": {name: value for name, value in additional.items() if value},
    }


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
    chosen, words = reader.read_until_word(arguments)
    options = SlurmOptions(**chosen)
    launched, shares = _shares(options, read_command(words, check_data=False))
    codes: list[int] = []
    try:
        jobs = submit(options.logs, options.cluster, _parameters(options, launched.name), Task(launched), shares)
        run = f", run in {mask(launched.run)}" if launched.run else ""
        print(f"submitted {', '.join(job.job_id for job in jobs)}; logs in {options.logs}{run}", flush=True)
        for number, has_result in ended(jobs) if options.wait else ():
            outcome = "done"
            if failed := failure(jobs[number], has_result, launched.name):
                reason, code = failed
                codes.append(code)
                outcome = f"{reason} (log: {jobs[number].paths.stderr})"
            print(f"task {shares[number]}: {outcome}" if shares else outcome, flush=True)
    except KeyboardInterrupt:
        tell(_NAME, "no longer waiting; what was submitted goes on")
        return INTERRUPTED
    if codes and shares:
        print(f"{len(codes)} of {len(shares)} tasks failed; give the same command again to build what is missing")
    return max(codes, default=0)


if __name__ == "__main__":
    run_program(_NAME, main)
