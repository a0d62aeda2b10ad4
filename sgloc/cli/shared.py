"""Options that several commands have, so that the same thing has the same name and the same words everywhere."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from sgloc.dist import Placement


@dataclass(frozen=True)
class CheckpointOptions:
    """A trained model."""

    checkpoint: str
    """Folder or URL of a checkpoint; of a run, of which the best is taken, or all where they are verified; or, for what
    draws, of an exported model."""


@dataclass(frozen=True)
class KindOptions:
    """The model's code."""

    kind: str = ""
    """Name of the model, where neither this program nor an installed package has it: package:Recipe, whose code is
    imported."""


@dataclass(frozen=True)
class RunOptions:
    """A run."""

    run: str
    """Folder or URL of a run."""


@dataclass(frozen=True)
class ShardsOptions:
    """The sketches."""

    data: str
    """Folder or URL of shards."""


@dataclass(frozen=True)
class OutOptions:
    """Where results go."""

    out: str
    """Folder or URL to write to."""


@dataclass(frozen=True)
class OverwriteOptions:
    """What becomes of older results."""

    overwrite: bool = False
    """Replace shards that are there already."""


@dataclass(frozen=True)
class WorkersOptions:
    """Processes."""

    workers: int = 0
    """Processes; 0: one a core."""


@dataclass(frozen=True)
class DeviceOptions:
    """Where to compute."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA when there is one."""


@dataclass(frozen=True)
class JsonOptions:
    """The form of what is printed."""

    json: bool = False
    """Print JSON in place of text and tables."""


def chosen_device(name: str, placement: "Placement | None" = None) -> "torch.device":
    """The device to compute on: of this process alone, unless it is placed among others."""
    from sgloc.dist import resolve_placement, select_device
    from sgloc.memory import keep_freed_memory

    device = select_device(name, placement or resolve_placement({}))
    if device.type == "cpu":
        keep_freed_memory()
    return device
