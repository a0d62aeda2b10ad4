"""Helpers shared by several commands."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from sgloc.dist import Placement

DeviceName = Literal["auto", "cpu", "cuda"]


def chosen_device(name: str, placement: "Placement | None" = None) -> "torch.device":
    """Return the device to compute on, and tune malloc if it is a CPU.

    Args:
        name: the requested device, or "auto".
        placement: this process's place among the ranks; None for a single process.
    """
    from sgloc.dist import resolve_placement, select_device
    from sgloc.memory import keep_freed_memory

    device = select_device(name, placement or resolve_placement({}))
    if device.type == "cpu":
        keep_freed_memory()
    return device
