"""Which programs the ranks run, and whether torch's CUDA and the driver fit."""

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sgloc.doctor.examination import Examination, outliers
from sgloc.doctor.finding import Finding
from sgloc.train.record import versions

_OPTIONAL = ("deepspeed", "triton")
_NONE = "none"


@dataclass(frozen=True)
class Programs:
    """What a rank runs.

    Attributes:
        versions: of each program; "none" where it is not installed.
        driver: version of the NVIDIA driver; None where there is none.
        cuda_error: why torch, built for CUDA, cannot use it; None if it can, or is not.
    """

    versions: Mapping[str, str]
    driver: str | None
    cuda_error: str | None


def look_at_programs() -> Programs:
    """This rank's."""
    found = dict(versions())
    found["cuda"] = torch.version.cuda or _NONE
    found["nccl"] = _NONE
    if torch.version.cuda and torch.distributed.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    for name in _OPTIONAL:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = _NONE
    return Programs(found, _driver(), _cuda_error())


def _driver() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module\D*([\d.]+)", text)
    return found[1] if found else "of unknown version"


def _cuda_error() -> str | None:
    if torch.version.cuda is None or torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None


def judge_programs(facts: Mapping[int, Programs], ranks: Examination) -> list[Finding]:
    """All ranks are to run the same, and torch is to fit the driver."""
    found, first = [], facts[0].versions
    for name in first:
        common, odd = outliers({rank: programs.versions.get(name, _NONE) for rank, programs in facts.items()})
        found += [f"{ranks.names([rank])} has {name} {odd[rank]}, others have {common}" for rank in odd]
    advice = "start all ranks in the same environment; training refuses to start like this"
    findings = [Finding("versions", "problem", one, advice) for one in found]
    if not findings:
        listed = ", ".join(f"{name} {version:.12}" for name, version in first.items())
        findings = [Finding("versions", "ok", f"{listed}; the same on all ranks")]
    return [*findings, _judge_cuda(facts, ranks)]


def _judge_cuda(facts: Mapping[int, Programs], ranks: Examination) -> Finding:
    cpu_builds = [rank for rank, one in facts.items() if one.driver is not None and one.versions["cuda"] == _NONE]
    if cpu_builds:
        driver = facts[cpu_builds[0]].driver
        found = f"{ranks.names(cpu_builds)}: NVIDIA driver {driver}, but torch is built for the CPU alone"
        return Finding("CUDA", "problem", found, "install a CUDA build of torch (see pytorch.org)")
    broken = [rank for rank, programs in facts.items() if programs.cuda_error is not None]
    if broken:
        programs = facts[broken[0]]
        found = f"{ranks.names(broken)}: torch for CUDA {programs.versions['cuda']}: {programs.cuda_error}"
        if programs.driver is None:
            return Finding("CUDA", "warning", found, "no NVIDIA driver here: start on a node with GPUs")
        advice = f"the driver is {programs.driver}: update it, or install torch for an older CUDA"
        return Finding("CUDA", "problem", found, advice)
    programs = facts[0]
    if programs.driver is None:
        return Finding("CUDA", "ok", "no NVIDIA driver, and torch is built for the CPU")
    return Finding("CUDA", "ok", f"torch for CUDA {programs.versions['cuda']}, driver {programs.driver}")
