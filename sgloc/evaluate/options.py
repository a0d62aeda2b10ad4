"""What a trained model is to draw, and how it is measured; the options of commands that use one."""

from dataclasses import dataclass
from typing import Literal

from sgloc.config import Options, option, require
from sgloc.inference.rows import ROWS, ROWS_OF_REORGANIZATION

_MOST_DISTURBANCE = 10.0


@dataclass(frozen=True)
class SamplingOptions(Options):
    """How the pen is sampled."""

    temperature: float = option(0.0, at_least=0, at_most=10**6)
    """0: greedy; above: sample, 0.24 as published (METHOD 9)."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Seed of all that is random."""


@dataclass(frozen=True)
class DrawOptions(SamplingOptions):
    """Which sketches are redrawn, and how. Most upper ends only keep numbers finite and memory in bounds."""

    split: Literal["train", "valid", "test"] = "test"
    """Which sketches."""
    max_points: int = option(0, at_least=0, at_most=10**5)
    """Most points of a drawing; 0: as many as the longest drawing of the model's training data has."""
    batch_size: int = option(256, at_least=1, at_most=10**6)
    """Sketches computed together."""


@dataclass(frozen=True)
class GenerateOptions(DrawOptions):
    """What to redraw, and how."""

    count: int = option(64, at_least=1, at_most=10**9)
    """Sketches, spread evenly over the split."""
    disturb: float = option(0.0, at_least=0, at_most=10**6)
    """How far strokes are moved before the sketches are redrawn, in sketch sizes (r of METHOD 3); 0: synthesis."""
    rows: tuple[str, ...] = ROWS
    """Rows of the gallery; put_back: the sketch's own strokes, each moved to where the redrawing has it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = set(self.rows) - set(ROWS)
        said = ", ".join(sorted(unknown)) or "none"
        require(bool(self.rows) and not unknown, "rows", f"some of {', '.join(ROWS)}", said)
        shows_more = self.disturb > 0 or not set(self.rows) <= set(ROWS_OF_REORGANIZATION)
        require(shows_more, "rows", "original, redrawn or more, for no stroke is moved", ", ".join(self.rows))


@dataclass(frozen=True)
class EvaluateOptions(DrawOptions):
    """What to measure, and how."""

    count: int = option(0, at_least=0, at_most=10**9)
    """Sketches, spread evenly over the split; 0: all."""
    disturb: tuple[float, ...] = (0.0, 0.1, 0.3)
    """How far strokes are moved, each in turn, in sketch sizes (r of METHOD 3); 0: synthesis."""
    resamples: int = option(1000, at_least=1, at_most=10**6)
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        super().__post_init__()
        is_right = bool(self.disturb) and all(0 <= each <= _MOST_DISTURBANCE for each in self.disturb)
        require(is_right, "disturb", f"distances from 0 to {_MOST_DISTURBANCE:g} sketch sizes", self.disturb)
        require(len(set(self.disturb)) == len(self.disturb), "disturb", "distances that differ", self.disturb)

    @property
    def tasks(self) -> dict[str, float]:
        """The distances, by the names that results have for them."""
        return {f"reorganization:{disturb:g}" if disturb else "synthesis": disturb for disturb in self.disturb}
