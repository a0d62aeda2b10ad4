"""Options of the benchmarks, importable without torch."""

from dataclasses import dataclass
from typing import Literal

from sgloc.config import Options, option


@dataclass(frozen=True)
class BenchOptions(Options):
    """Options of every benchmark."""

    batch: int = option(100, at_least=2, at_most=10**6)
    """Sketches per batch."""
    repeats: int = option(5, at_least=1, at_most=10**6)
    """Timed repeats of each measurement."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to measure on; 'auto' takes CUDA if it is available."""


@dataclass(frozen=True)
class BatchOptions(BenchOptions):
    """Options of a benchmark on a batch of drawings."""

    data: str | None = None
    """Folder or URL of the shards that supply the batch; default: a synthetic batch."""


@dataclass(frozen=True)
class CeilingOptions(BenchOptions):
    """Options of a benchmark whose rates are compared with those of matrix products."""

    ceiling_size: int = 2048
    """Side of the square matrices whose product rate is the ceiling that other rates are compared with."""


@dataclass(frozen=True)
class OpsOptions(BatchOptions):
    """Benchmark the grid operators and batch preparation."""

    batch: int = option(1024, at_least=2, at_most=10**6)
    repeats: int = option(10, at_least=1, at_most=10**6)


@dataclass(frozen=True)
class StreamOptions(BatchOptions):
    """Benchmark reading from shards."""

    data: str | None = None
    """Folder or URL of the shards; default: a synthetic sample, built for the measurement."""
    remote: str | None = None
    """URL of the same shards on a server, measured as well; default: none."""
    repeats: int = option(3, at_least=1, at_most=10**6)


@dataclass(frozen=True)
class StepOptions(CeilingOptions, BatchOptions):
    """Benchmark a training step."""

    long_sketch: int = 1000
    """Points of the long sketch that is added to the batch of the second measured step."""


@dataclass(frozen=True)
class GenerateOptions(CeilingOptions, BatchOptions):
    """Benchmark drawing from latent codes."""

    batch: int = option(256, at_least=2, at_most=10**6)
    repeats: int = option(3, at_least=1, at_most=10**6)


@dataclass(frozen=True)
class CheckpointOptions(BatchOptions):
    """Benchmark saving and loading a checkpoint, and the cost of a save to concurrent training steps."""

    out: str | None = None
    """Folder or URL to save to; default: a temporary folder."""


@dataclass(frozen=True)
class RetrievalOptions(CeilingOptions):
    """Benchmark ranking latent codes, each query against all of them."""

    batch: int = option(20_000, at_least=2, at_most=10**6)
    """Number of latent codes."""
    repeats: int = option(3, at_least=1, at_most=10**6)


OPTIONS: dict[str, type[BenchOptions]] = {
    "ops": OpsOptions,
    "stream": StreamOptions,
    "step": StepOptions,
    "generate": GenerateOptions,
    "checkpoint": CheckpointOptions,
    "retrieval": RetrievalOptions,
}
"""Option class of each benchmark; the key is also the name of its module."""
