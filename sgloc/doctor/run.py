"""All checks, one after another, by all ranks together."""

import contextlib
import math
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

import torch
import torch.distributed

from sgloc import dist
from sgloc.config import Config
from sgloc.doctor.devices import Device, judge_devices, look_at_device
from sgloc.doctor.examination import Examination, end_process, limited
from sgloc.doctor.finding import Finding, has_problem
from sgloc.doctor.folder import check_folder
from sgloc.doctor.host import judge_hosts, look_at_host
from sgloc.doctor.network import ADVICE, Network, judge_network, measure_network
from sgloc.doctor.programs import judge_programs, look_at_programs
from sgloc.doctor.shards import check_data
from sgloc.errors import ConfigError
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.program import tell

# A rank that is late is waited for longer than it takes to say that a check is hanging.
_PATIENCE = 30.0

Show = Callable[[list[Finding]], None]


@dataclass(frozen=True)
class DoctorOptions:
    """What to look at.

    Attributes:
        data: folder or URL of shards; None: none.
        run: folder or URL that a run is to write to; None: none.
        device: "auto", "cpu" or "cuda".
        timeout: seconds that one check of one rank may take.
    """

    data: str | None = None
    run: str | None = None
    device: str = "auto"
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout >= 1):
            raise ConfigError(f"timeout must be at least 1 second, not {self.timeout}")


def examine(options: DoctorOptions, environment: Mapping[str, str], show: Show) -> bool:
    """Make all checks with the ranks that the launcher started.

    A check that takes too long ends the process with code 1, after what was found so far is shown.

    Args:
        options: what to look at.
        environment: as the launcher left it.
        show: shows findings; called on rank 0, once.

    Returns:
        Whether a run may be started: no check found a problem. The same on all ranks that are left.
    """
    try:
        placement = dist.resolve_placement(environment)
    except ConfigError as error:
        if "0" in (environment.get("RANK", "0"), environment.get("SLURM_PROCID", "0")):
            show([Finding("launcher", "problem", str(error), "start plain, with torchrun or with srun")])
        return False
    findings: list[Finding] = []
    try:
        with _meeting(placement, options.timeout, findings, show) as examination:
            _make_checks(examination, placement, options)
            is_well = examination.from_rank_0(not has_problem(findings))
    except (RuntimeError, ConfigError) as error:
        if isinstance(error, RuntimeError) and not (dist.is_lost_peer(error) or dist.is_timeout(error)):
            raise
        findings.append(_of_lost_ranks(error, placement, options))
        is_well = False
    if placement.rank == 0:
        show(findings)
    elif findings:
        # Rank 0 may be the one that is gone.
        tell("sgloc doctor", findings[-1].found)
    return is_well


@contextlib.contextmanager
def _meeting(placement: dist.Placement, timeout: float, findings: list[Finding], show: Show) -> Iterator[Examination]:
    host = socket.gethostname()

    def give_up(check: str) -> NoReturn:
        found = f"rank {placement.rank} ({host}) has not ended this check after {timeout:.0f} s"
        if placement.rank == 0:
            show([*findings, Finding(check, "problem", found, "see what it waits for; --timeout gives it longer")])
            sys.stdout.flush()
        else:
            tell("sgloc doctor", f"{check}: {found}")
        end_process()

    with contextlib.ExitStack() as stack:
        # By gloo, so that ranks hear of each other also where nccl does not work.
        group = dist.process_group(placement, torch.device("cpu"), timeout + _PATIENCE)
        with limited(timeout + 2 * _PATIENCE, lambda: give_up("meeting")):
            stack.enter_context(group)
            hosts = [""] * placement.world_size
            torch.distributed.all_gather_object(hosts, host)
        yield Examination(placement.rank, hosts, timeout, give_up, findings)


def _of_lost_ranks(error: Exception, placement: dist.Placement, options: DoctorOptions) -> Finding:
    if isinstance(error, ConfigError):
        return Finding("meeting", "problem", str(error), "see the network between the nodes")
    if isinstance(error, RuntimeError) and dist.is_lost_peer(error):
        found = f"one of {placement.world_size} ranks is gone; what it said last tells why"
        return Finding("ranks", "problem", found, "look into its output")
    found = f"one of {placement.world_size} ranks has not answered for {options.timeout + _PATIENCE:.0f} s"
    return Finding("ranks", "problem", found, "see whether all were started, and can reach each other")


def _make_checks(examination: Examination, placement: dist.Placement, options: DoctorOptions) -> None:
    num_parameters = _num_parameters()
    programs, errors = examination.gather("versions", look_at_programs)
    if not examination.refuse("versions", errors, "repair the environment there") and examination.rank == 0:
        examination.findings += [_judge_nodes(examination, placement), *judge_programs(programs, examination)]
    device = _check_devices(examination, placement, options)
    uses_nccl = device is not None and dist.backend(device) == "nccl"
    hosts, errors = examination.gather("hosts", look_at_host)
    if not examination.refuse("hosts", errors, "see what is mounted there") and examination.rank == 0:
        examination.findings += judge_hosts(hosts, examination, uses_nccl=uses_nccl)
    if device is not None:
        _check_network(examination, device, num_parameters)
    if options.run is not None:
        check_folder(examination, options.run, num_parameters)
    if options.data is not None:
        check_data(examination, options.data)


def _num_parameters() -> int:
    """Of the model at the published sizes."""
    config = Config()
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in SketchGloc(config.model, config.loss, 2).parameters())


def _judge_nodes(examination: Examination, placement: dist.Placement) -> Finding:
    on_hosts = examination.on_each_host()
    counts = sorted({len(ranks) for ranks in on_hosts.values()})
    found = (
        f"{placement.world_size} process(es) by {placement.launcher} on {placement.num_nodes} node(s), "
        f"{len(on_hosts)} machine(s): {' or '.join(map(str, counts))} on each"
    )
    if len(counts) > 1:
        fewest = min(on_hosts, key=lambda host: len(on_hosts[host]))
        advice = f"{fewest} has only {len(on_hosts[fewest])}; start as many on every node"
        return Finding("nodes", "warning", found, advice)
    return Finding("nodes", "ok", found)


def _check_devices(examination: Examination, placement: dist.Placement, options: DoctorOptions) -> torch.device | None:
    """Look at the devices; gives this rank's, where all ranks have one of the same type."""
    chosen: list[torch.device] = []

    def look() -> tuple[str, Device]:
        chosen.append(dist.select_device(options.device, placement))
        dist.use_device(chosen[0])
        return chosen[0].type, look_at_device(chosen[0])

    facts, errors = examination.gather("devices", look)
    if examination.refuse("devices", errors, "see nvidia-smi, CUDA_VISIBLE_DEVICES, and the GPUs that were asked for"):
        return None
    if examination.rank == 0:
        examination.findings += judge_devices({rank: device for rank, (_, device) in facts.items()}, examination)
    types = {rank: name for rank, (name, _) in facts.items()}
    mixed = {rank: f"it computes on {types[rank]}, rank 0 on {types[0]}" for rank in types if types[rank] != types[0]}
    if examination.refuse("devices", mixed, "start all ranks where there are GPUs, or all with --device cpu"):
        return None
    return chosen[0]


def _check_network(examination: Examination, device: torch.device, num_parameters: int) -> None:
    backend = dist.backend(device)
    if len(examination.hosts) == 1:
        found = "one process: nothing to measure; start the doctor as the run will be started"
        examination.findings.append(Finding("all-reduce", "ok", found))
        return

    def measure() -> Network:
        group = None
        if backend != "gloo":
            group = torch.distributed.new_group(backend=backend)
        return measure_network(device, num_parameters, group)

    facts, errors = examination.gather("all-reduce", measure)
    if not examination.refuse("all-reduce", errors, ADVICE[backend]) and examination.rank == 0:
        examination.findings += judge_network(facts, examination, num_parameters, backend)
