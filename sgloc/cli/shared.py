"""What several commands do and take."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from sgloc.dist import Placement

DeviceName = Literal["auto", "cpu", "cuda"]


def chosen_device(name: str, placement: "Placement | None" = None) -> "torch.device":
    """The device to compute on: of this process alone, unless it is placed among others."""
    from sgloc.dist import resolve_placement, select_device
    from sgloc.memory import keep_freed_memory

    device = select_device(name, placement or resolve_placement({}))
    if device.type == "cpu":
        keep_freed_memory()
    return device
