"""The sequence of all checks, run by all ranks together."""

import contextlib
import logging
import socket
from collections.abc import Callable, Mapping

import torch

from sgloc import dist
from sgloc.doctor.examination import Examination
from sgloc.doctor.finding import Finding, has_problem
from sgloc.doctor.folder import check_folder
from sgloc.doctor.machines import check_devices, check_hosts, check_programs
from sgloc.doctor.network import check_network
from sgloc.doctor.options import DoctorOptions
from sgloc.doctor.shards import check_data
from sgloc.errors import ConfigError
from sgloc.models.sketchgloc.config import Config
from sgloc.models.sketchgloc.network import SketchGloc

logger = logging.getLogger(__name__)

# Wait for a late rank longer than the check's timeout, so that a hanging check is reported first.
_PATIENCE = 30.0


def examine(options: DoctorOptions, environment: Mapping[str, str], show: Callable[[list[Finding]], None]) -> bool:
    """Run all checks with the ranks that the launcher started.

    A check that exceeds the timeout ends the process with exit code 1, after showing the findings so far.

    Args:
        options: what to check.
        environment: environment variables as set by the launcher.
        show: displays findings; called once, on rank 0.

    Returns:
        Whether no check found a problem, so that a run may be started; the same on all remaining ranks.
    """
    try:
        placement = dist.resolve_placement(environment)
    except ConfigError as error:
        if "0" in (environment.get("RANK", "0"), environment.get("SLURM_PROCID", "0")):
            show([Finding("launcher", "problem", str(error), "start it plainly, with torchrun or with srun")])
        return False
    examination = Examination(placement.rank, [], options.timeout, show)
    waited = options.timeout + _PATIENCE
    try:
        with contextlib.ExitStack() as stack:
            with examination.limited("meeting", 2 * _PATIENCE):
                # gloo, so that ranks can communicate even if nccl does not work.
                group = stack.enter_context(dist.process_group(placement, torch.device("cpu"), waited))
                examination.hosts = group.gather(socket.gethostname())
            _make_checks(examination, placement, options)
    except (RuntimeError, ConfigError) as error:
        examination.findings.append(_explained(error, placement.world_size, waited))
        if placement.rank != 0:
            # Log it here too, because rank 0 may be the lost one.
            logger.error(examination.findings[-1].found)
    if placement.rank == 0:
        show(examination.findings)
    return not has_problem(examination.findings)


def _explained(error: RuntimeError | ConfigError, world_size: int, seconds: float) -> Finding:
    """Return a finding that explains why the ranks lost each other; re-raise any other error."""
    if isinstance(error, ConfigError):
        return Finding("meeting", "problem", str(error), "check the network between the nodes")
    if dist.lost_rank(error) == "gone":
        found = f"one of {world_size} ranks is gone; its last output says why"
        return Finding("ranks", "problem", found, "read its output")
    if dist.lost_rank(error) == "silent":
        found = f"one of {world_size} ranks has not answered for {seconds:.0f} s"
        return Finding("ranks", "problem", found, "check that all ranks were started and can reach each other")
    raise error


def _make_checks(examination: Examination, placement: dist.Placement, options: DoctorOptions) -> None:
    examination.findings.append(_judge_nodes(examination, placement))
    check_programs(examination)
    device = check_devices(examination, options.device, placement)
    check_hosts(examination, uses_nccl=options.device != "cpu" and torch.cuda.is_available())
    config = Config()
    with torch.device("meta"):
        published = SketchGloc(config.model, config.loss, 2)
    num_parameters = sum(parameter.numel() for parameter in published.parameters())
    if device is not None:
        check_network(examination, device, num_parameters)
    if options.run is not None:
        check_folder(examination, options.run, num_parameters)
    if options.data is not None:
        check_data(examination, options.data)


def _judge_nodes(examination: Examination, placement: dist.Placement) -> Finding:
    on_hosts = examination.on_each_host()
    fewest = min(on_hosts, key=lambda host: len(on_hosts[host]))
    counts = sorted({len(ranks) for ranks in on_hosts.values()})
    found = (
        f"{placement.world_size} process(es) by {placement.launcher} on {placement.num_nodes} node(s), "
        f"{len(on_hosts)} machine(s): {' or '.join(map(str, counts))} on each"
    )
    advice = f"{fewest} has only {counts[0]}; start the same number on every node"
    return Finding.judged("nodes", len(counts) == 1, "warning", found, advice)
