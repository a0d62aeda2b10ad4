"""The checks of `python -m benchmarks gpu`, each run in a process of its own by `python -m benchmarks.gpu_checks`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# What a check found out, by name.
Facts = dict[str, Any]


class CheckError(Exception):
    """A check found that something is not as it should be."""


class NotRunError(Exception):
    """A check has no meaning here."""


def require(condition: bool, fault: str) -> None:
    """Fail the check with a sentence, unless the condition holds."""
    if not condition:
        raise CheckError(fault)


@dataclass(frozen=True)
class Setting:
    """Where a check runs.

    Attributes:
        folder: of the whole study, for what a check writes.
        device: on which.
        is_tiny: a dry run: sizes so small that every check takes seconds on a CPU.
    """

    folder: Path
    device: torch.device
    is_tiny: bool

    @property
    def is_cuda(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == "cuda"

    def need_cuda(self) -> None:
        """Leave the check out where there is no GPU."""
        if not self.is_cuda:
            raise NotRunError("has no meaning on a CPU")

    def synchronize(self) -> None:
        """Wait until the device has done everything."""
        if self.is_cuda:
            torch.cuda.synchronize()


def relative_error(found: torch.Tensor, right: torch.Tensor) -> float:
    """How far a tensor is from the right one, in lengths of the right one."""
    wide = right.double().cpu()
    return float((found.double().cpu() - wide).norm() / wide.norm().clamp(min=1e-12))
