"""The checks of `python -m benchmarks gpu`, each run in its own process by `python -m benchmarks.gpu_checks`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Results of a check, keyed by name.
Facts = dict[str, Any]


class CheckError(Exception):
    """A check failed."""


class NotRunError(Exception):
    """A check does not apply to this machine."""


def require(condition: bool, fault: str) -> None:
    """Fail the check with the message `fault` unless the condition holds."""
    if not condition:
        raise CheckError(fault)


@dataclass(frozen=True)
class Setting:
    """The setting of a check.

    Attributes:
        folder: folder of the study, for the files of the check.
        device: device to check.
        is_tiny: whether this is a dry run, with sizes that take seconds on a CPU.
    """

    folder: Path
    device: torch.device
    is_tiny: bool

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def need_cuda(self) -> None:
        """Skip the check unless the device is a GPU.

        Raises:
            NotRunError: if it is not.
        """
        if not self.is_cuda:
            raise NotRunError("does not apply to a CPU")

    def synchronize(self) -> None:
        """Wait for all queued work of the device."""
        if self.is_cuda:
            torch.cuda.synchronize()


def relative_error(found: torch.Tensor, right: torch.Tensor) -> float:
    """Return the norm of a tensor's error, relative to the norm of the correct tensor."""
    wide = right.double().cpu()
    return float((found.double().cpu() - wide).norm() / wide.norm().clamp(min=1e-12))
