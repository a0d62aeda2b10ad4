"""All checks, one after another, by all ranks together."""

import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

import torch
import torch.distributed

from sgloc import dist
from sgloc.doctor.examination import Examination, end_process, timeout
from sgloc.doctor.finding import Finding, has_problem
from sgloc.doctor.folder import check_folder
from sgloc.doctor.machines import (
    Device,
    judge_devices,
    judge_hosts,
    judge_programs,
    look_at_device,
    look_at_host,
    look_at_programs,
)
from sgloc.doctor.network import ADVICE, Network, judge_network, measure_network
from sgloc.doctor.options import DoctorOptions
from sgloc.doctor.shards import check_data
from sgloc.errors import ConfigError
from sgloc.models.sketchgloc.config import Config
from sgloc.models.sketchgloc.network import SketchGloc

logger = logging.getLogger(__name__)

# A rank that is late is waited for longer than it takes to report a check that hangs.
_PATIENCE = 30.0

Show = Callable[[list[Finding]], None]


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
    except (RuntimeError, ConfigError) as error:
        if isinstance(error, RuntimeError) and not (dist.is_lost_peer(error) or dist.is_timeout(error)):
            raise
        findings.append(_of_lost_ranks(error, placement, options))
        if placement.rank != 0:
            # Rank 0 may be the one that is gone.
            logger.error(findings[-1].found)
    if placement.rank == 0:
        show(findings)
    return not has_problem(findings)


@contextlib.contextmanager
def _meeting(placement: dist.Placement, seconds: float, findings: list[Finding], show: Show) -> Iterator[Examination]:
    host = socket.gethostname()

    def give_up(check: str) -> NoReturn:
        found = f"rank {placement.rank} ({host}) has not ended this check after {seconds:.0f} s"
        if placement.rank == 0:
            show([*findings, Finding(check, "problem", found, "see what it waits for; --timeout gives it longer")])
            sys.stdout.flush()
        else:
            logger.error("%s: %s", check, found)
        end_process()

    with contextlib.ExitStack() as stack:
        # By gloo, so that ranks hear of each other also where nccl does not work.
        group = dist.process_group(placement, torch.device("cpu"), seconds + _PATIENCE)
        with timeout(seconds + 2 * _PATIENCE, lambda: give_up("meeting")):
            stack.enter_context(group)
            hosts = [""] * placement.world_size
            torch.distributed.all_gather_object(hosts, host)
        yield Examination(placement.rank, hosts, seconds, give_up, findings)


def _of_lost_ranks(error: Exception, placement: dist.Placement, options: DoctorOptions) -> Finding:
    if isinstance(error, ConfigError):
        return Finding("meeting", "problem", str(error), "see the network between the nodes")
    if isinstance(error, RuntimeError) and dist.is_lost_peer(error):
        found = f"one of {placement.world_size} ranks is gone; what it said last tells why"
        return Finding("ranks", "problem", found, "look into its output")
    found = f"one of {placement.world_size} ranks has not answered for {options.timeout + _PATIENCE:.0f} s"
    return Finding("ranks", "problem", found, "see whether all were started, and can reach each other")


def _make_checks(examination: Examination, placement: dist.Placement, options: DoctorOptions) -> None:
    findings = examination.findings
    if programs := examination.gather("versions", look_at_programs, "repair the environment there"):
        findings += [_judge_nodes(examination, placement), *judge_programs(programs, examination)]
    device = _common_device(examination, placement, options)
    uses_nccl = device is not None and dist.backend(device) == "nccl"
    if hosts := examination.gather("hosts", look_at_host, "see what is mounted there"):
        findings += judge_hosts(hosts, examination, uses_nccl=uses_nccl)
    config = Config()
    with torch.device("meta"):
        published = SketchGloc(config.model, config.loss, 2)
    num_parameters = sum(parameter.numel() for parameter in published.parameters())
    if device is not None:
        _check_network(examination, device, num_parameters)
    if options.run is not None:
        check_folder(examination, options.run, num_parameters)
    if options.data is not None:
        check_data(examination, options.data)


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


def _common_device(examination: Examination, placement: dist.Placement, options: DoctorOptions) -> torch.device | None:
    """Look at the devices; gives this rank's, if all ranks have one of the same type."""
    chosen: list[torch.device] = []

    def look() -> tuple[str, Device]:
        chosen.append(dist.select_device(options.device, placement))
        dist.use_device(chosen[0])
        return chosen[0].type, look_at_device(chosen[0])

    advice = "see nvidia-smi, CUDA_VISIBLE_DEVICES, and the GPUs that were asked for"
    facts = examination.gather("devices", look, advice)
    if facts is None:
        return None
    examination.findings += judge_devices({rank: device for rank, (_, device) in facts.items()}, examination)
    types = {rank: name for rank, (name, _) in facts.items()}
    mixed = {rank: f"it computes on {types[rank]}, rank 0 on {types[0]}" for rank in types if types[rank] != types[0]}
    advice = "start all ranks where there are GPUs, or all with --device cpu"
    return None if examination.refuse("devices", mixed, advice) else chosen[0]


def _check_network(examination: Examination, device: torch.device, num_parameters: int) -> None:
    backend = dist.backend(device)
    if len(examination.hosts) == 1:
        found = "one process: nothing to measure; start the doctor as the run will be started"
        examination.findings.append(Finding("all-reduce", "ok", found))
        return

    def measure() -> Network:
        group = None if backend == "gloo" else torch.distributed.new_group(backend=backend)
        return measure_network(device, num_parameters, group)

    if facts := examination.gather("all-reduce", measure, ADVICE[backend]):
        examination.findings += judge_network(facts, examination, num_parameters, backend)
