"""Rank, world size and rendezvous of this process, from a plain start, torchrun or srun."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sgloc.errors import ConfigError

# Range of ports for processes started by srun, and the distance between the ports of a job's steps.
_FIRST_PORT, _NUM_PORTS, _PORTS_BETWEEN_STEPS = 20000, 10000, 997
_SLURM_SECONDS = 60


@dataclass(frozen=True)
class Placement:
    """This process's place among the processes of a run.

    Attributes:
        launcher: "plain" (a single process), "torchrun" or "srun".
        rank: index among all processes.
        local_rank: index among the processes on this machine.
        world_size: number of processes.
        address, port: rendezvous address of rank 0; unused for a single process.
        num_nodes: number of machines, or 1 if the launcher does not report it.
    """

    launcher: Literal["plain", "torchrun", "srun"]
    rank: int
    local_rank: int
    world_size: int
    address: str
    port: int
    num_nodes: int = 1


def resolve_placement(environment: Mapping[str, str]) -> Placement:
    """Read the placement from the environment variables of the launcher.

    Under srun, MASTER_ADDR and MASTER_PORT may be missing: the rendezvous is then at Slurm's address of the step's
    first node, with a port computed from the job and step IDs.

    Raises:
        ConfigError: if the environment is incomplete or a variable is not a number, naming the variable; or if Slurm
            does not report the first node's address.
    """
    if any(name in environment for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")):
        launcher: Literal["torchrun", "srun"] = "torchrun"
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        num_nodes_names: tuple[str, ...] = ("GROUP_WORLD_SIZE",)
    elif "SLURM_STEP_ID" in environment and environment.get(_num_tasks_name(environment)) != "1":
        # Only srun sets SLURM_STEP_ID; a batch script has the other variables too, but is a single process.
        launcher, names = "srun", ("SLURM_PROCID", "SLURM_LOCALID", _num_tasks_name(environment))
        num_nodes_names = ("SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    else:
        return Placement("plain", 0, 0, 1, "localhost", 0)
    rank, local_rank, world_size = (_number(environment, name, launcher) for name in names)
    if rank >= world_size:
        raise ConfigError(f"{names[0]} is {rank}, but {names[2]} is {world_size}; start with torchrun or srun")
    counts = [_number(environment, name, launcher) for name in num_nodes_names if name in environment]
    if launcher == "srun" and not {"MASTER_ADDR", "MASTER_PORT"} & environment.keys():
        address, port = _slurm_meeting_point(environment)
    else:
        address = _value(environment, "MASTER_ADDR", launcher)
        port = _number(environment, "MASTER_PORT", launcher)
    return Placement(launcher, rank, local_rank, world_size, address, port, *counts[:1])


def _num_tasks_name(environment: Mapping[str, str]) -> str:
    """Return the variable with the number of processes; in an interactive step, SLURM_NTASKS is that of the job."""
    return "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"


def _value(environment: Mapping[str, str], name: str, launcher: str) -> str:
    if not environment.get(name):
        raise ConfigError(
            f"{name} is not set although this looks like a process of {launcher}; "
            "start with torchrun or srun, or unset the launcher's other variables"
        )
    return environment[name]


def _number(environment: Mapping[str, str], name: str, launcher: str) -> int:
    value = _value(environment, name, launcher)
    if not value.isdecimal():
        raise ConfigError(f"{name} must be a number, not {value!r}; start with torchrun or srun")
    return int(value)


def _slurm_meeting_point(environment: Mapping[str, str]) -> tuple[str, int]:
    """Return the address of a step's first node, and a port that no other step is likely to use.

    Raises:
        ConfigError: if Slurm does not report the address.
    """
    nodes = _value(environment, "SLURM_STEP_NODELIST", "srun")
    job, step = (_number(environment, name, "srun") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    head = _scontrol(environment, "hostnames", nodes).split()[0]
    # Node names may not resolve everywhere, but the address that Slurm itself uses does.
    address = re.search(r"\bNodeAddr=(\S+)", _scontrol(environment, "node", head))
    if address is None:
        raise ConfigError(f"scontrol did not report the address of node {head}; set MASTER_ADDR and MASTER_PORT")
    return address[1], _FIRST_PORT + (job + _PORTS_BETWEEN_STEPS * step) % _NUM_PORTS


def _scontrol(environment: Mapping[str, str], *words: str) -> str:
    """Return the output of `scontrol show`, which is not empty.

    Raises:
        ConfigError: if scontrol fails or prints nothing.
    """
    command = ["scontrol", "show", *words]
    try:
        done = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, check=True, timeout=_SLURM_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = " ".join(str(getattr(error, "stderr", None) or error).split())
        raise ConfigError(
            f"`{' '.join(command)}`, which looks up the address of rank 0, failed ({said}); "
            "set MASTER_ADDR and MASTER_PORT"
        ) from error
    if not done.stdout.strip():
        raise ConfigError(f"`{' '.join(command)}` printed nothing; set MASTER_ADDR and MASTER_PORT")
    return done.stdout
