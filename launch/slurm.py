"""Start an `sgloc` command on a Slurm cluster through submitit.

`python -m launch.slurm --nodes 4 --gpus_per_node 8 train --config configs/all345.yaml` submits a job with one task per
rank; slurm/train.sh is the equivalent batch script. After its time limit, preemption or the loss of a node, the job is
requeued and resumes.

`python -m launch.slurm --tasks 16 --wait shard --source quickdraw:simplified --out /scratch/shards` submits an array in
which each task builds its share, and reports how each task ended. Started again, it builds only the missing parts.
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

# A shorter time limit leaves too little time between the start and the warning, which may come a minute early.
_LEAST_MINUTES = 10
_NAME = "launch.slurm"


@dataclass(frozen=True)
class SlurmOptions(Options):
    """Resources to request from Slurm."""

    nodes: int = option(1, at_least=1)
    """Number of nodes."""
    gpus_per_node: int = option(0, at_least=0)
    """GPUs per node."""
    processes_per_node: int = option(0, at_least=0)
    """Ranks per node; 0 starts one per GPU, or 1 without GPUs."""
    cpus_per_process: int = option(4, at_least=1)
    """Cores per rank; in an array, cores per task and number of its worker processes."""
    memory_per_cpu: int = option(0, at_least=0)
    """Memory per core in GB; 0 uses the cluster's default."""
    partition: str = ""
    """Partition of the cluster; empty uses the cluster's default."""
    minutes: int = 1440
    """Time limit in minutes, after which a job is requeued and resumes."""
    tasks: int = option(0, at_least=0)
    """Number of tasks of an array that builds shards; 0 submits a single job."""
    logs: str = "slurm-logs"
    """Folder for logs, visible to all nodes."""
    slurm: list[str] = field(default_factory=list)
    """Any other sbatch option as NAME=VALUE, such as account=me; can be repeated."""
    cluster: Literal["auto", "slurm", "local"] = "auto"
    """Where to run: slurm submits jobs, local starts processes on this machine, auto uses Slurm if available."""
    wait: bool = False
    """Wait until all tasks have ended, and report how."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minutes < _LEAST_MINUTES:
            raise ConfigError(
                f"minutes must be at least {_LEAST_MINUTES}, not {self.minutes}; "
                f"a run is asked to save {WARNING_SECONDS} seconds before the time limit, and then requeued"
            )
        for setting in self.slurm:
            if not all(setting.partition("=")):
                raise ConfigError(f"slurm must be NAME=VALUE, not {setting!r}")


def _parameters(options: SlurmOptions, name: str) -> dict[str, Any]:
    """Return submitit's parameters for these options."""
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
        # By default srun gives each task only one of the job's CPUs. A rank that fails must end all others.
        "slurm_srun_args": [f"--cpus-per-task={options.cpus_per_process}", "--kill-on-bad-exit=1"],
        "slurm_setup": [f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{options.cpus_per_process}}}"],
        "slurm_additional_parameters": {name: value for name, value in additional.items() if value},
    }


def _shares(options: SlurmOptions, launched: Launched) -> tuple[Launched, list[str]]:
    """Return the command of each array task, and the tasks' shares; no shares for a single job.

    Raises:
        UsageError: if the command cannot be split into shares.
    """
    if not options.tasks:
        return launched, []
    if launched.name != "shard":
        raise UsageError(f"--tasks applies only to `sgloc shard`; leave it out to start `sgloc {launched.name}`")
    workers = ("--workers", str(options.cpus_per_process))
    return replace(launched, options=[*launched.options, *workers]), [
        f"{number}/{options.tasks}" for number in range(options.tasks)
    ]


def main(arguments: Sequence[str]) -> int:
    """Submit the command and optionally wait; return 0, or the highest exit code of the failed tasks."""
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
        tell(_NAME, "no longer waiting; the submitted tasks continue")
        return INTERRUPTED
    if codes and shares:
        print(f"{len(codes)} of {len(shares)} tasks failed; start the same command again to build the missing parts")
    return max(codes, default=0)


if __name__ == "__main__":
    run_program(_NAME, main)
