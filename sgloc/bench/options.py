"""The options of the measurements of `sgloc bench`, without torch."""

from dataclasses import dataclass
from typing import Literal

from sgloc.config import Options, option


@dataclass(frozen=True)
class BenchOptions(Options):
    """What every measurement has."""

    batch: int = option(100, at_least=2, at_most=10**6)
    """Sketches in a batch."""
    repeats: int = option(5, at_least=1, at_most=10**6)
    """Repeats of each measurement."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""


@dataclass(frozen=True)
class BatchOptions(BenchOptions):
    """A measurement on a batch of drawings."""

    data: str | None = None
    """Folder or URL of shards; without, a batch is drawn."""


@dataclass(frozen=True)
class CeilingOptions(BenchOptions):
    """A measurement whose rates are compared with those of matrix products."""

    ceiling_size: int = 2048
    """Side of the square matrices whose products the rates are compared with."""


@dataclass(frozen=True)
class OpsOptions(BatchOptions):
    """Grid operations and preparation of a batch."""

    batch: int = option(1024, at_least=2, at_most=10**6)
    repeats: int = option(10, at_least=1, at_most=10**6)


@dataclass(frozen=True)
class StreamOptions(BatchOptions):
    """Reading shards."""

    data: str | None = None
    """Folder or URL of shards; without, a synthetic sample is built."""
    remote: str | None = None
    """URL of the same shards on a server, to measure as well."""
    repeats: int = option(3, at_least=1, at_most=10**6)


@dataclass(frozen=True)
class StepOptions(CeilingOptions, BatchOptions):
    """A training step."""

    long_sketch: int = 1000
    """Points of the long sketch that the second of two measured steps has in addition."""


@dataclass(frozen=True)
class GenerateOptions(CeilingOptions, BatchOptions):
    """Drawing from codes."""

    batch: int = option(256, at_least=2, at_most=10**6)
    repeats: int = option(3, at_least=1, at_most=10**6)


@dataclass(frozen=True)
class CheckpointOptions(BatchOptions):
    """Saving and loading a checkpoint, and what a save costs the steps beside it."""

    out: str | None = None
    """Folder or URL to save to; without, a temporary folder."""


@dataclass(frozen=True)
class RetrievalOptions(CeilingOptions):
    """Ranking codes, each among all."""

    batch: int = option(20_000, at_least=2, at_most=10**6)
    """Codes."""
    repeats: int = option(3, at_least=1, at_most=10**6)


OPTIONS: dict[str, type[BenchOptions]] = {
    "ops": OpsOptions,
    "stream": StreamOptions,
    "step": StepOptions,
    "generate": GenerateOptions,
    "checkpoint": CheckpointOptions,
    "retrieval": RetrievalOptions,
}
"""Of each measurement, by its name, which is that of its module."""
