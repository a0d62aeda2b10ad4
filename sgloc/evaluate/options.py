"""Options of the commands that use a trained model."""

from dataclasses import dataclass
from typing import Literal

from sgloc.config import Options, option, require
from sgloc.inference.rows import ROWS, ROWS_OF_REORGANIZATION

_MOST_DISTURBANCE = 10.0


@dataclass(frozen=True)
class SamplingOptions(Options):
    """How drawings are sampled."""

    temperature: float = option(0.0, at_least=0, at_most=10**6)
    """Sampling temperature (METHOD 9); 0 decodes greedily, 0.24 is the published value."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Seed of all random numbers."""


@dataclass(frozen=True)
class DrawOptions(SamplingOptions):
    """Which sketches are redrawn, and how.

    Most upper limits only keep numbers finite and memory bounded.
    """

    split: Literal["train", "valid", "test"] = "test"
    """Split of the data set to take sketches from."""
    max_points: int = option(0, at_least=0, at_most=10**5)
    """Maximum number of points of a drawing; 0 uses that of the longest drawing in the model's training data."""
    batch_size: int = option(256, at_least=1, at_most=10**6)
    """Sketches per batch."""


@dataclass(frozen=True)
class GenerateOptions(DrawOptions):
    """What `sgloc generate` redraws, and how."""

    count: int = option(64, at_least=1, at_most=10**9)
    """Number of sketches, spread evenly over the split."""
    disturb: float = option(0.0, at_least=0, at_most=10**6)
    """How far to move strokes before redrawing, in sketch sizes (r of METHOD 3); 0: synthesis."""
    rows: tuple[str, ...] = ROWS
    """Rows of the gallery, any of original, disturbed, put_back and redrawn. put_back shows the sketch's own strokes,
    each moved to its place in the redrawing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = set(self.rows) - set(ROWS)
        said = ", ".join(sorted(unknown)) or "none"
        require(bool(self.rows) and not unknown, "rows", f"some of {', '.join(ROWS)}", said)
        shows_more = self.disturb > 0 or not set(self.rows) <= set(ROWS_OF_REORGANIZATION)
        require(shows_more, "rows", "a list with original or redrawn when disturb is 0", ", ".join(self.rows))


@dataclass(frozen=True)
class EvaluateOptions(DrawOptions):
    """What `sgloc evaluate` measures, and how."""

    count: int = option(0, at_least=0, at_most=10**9)
    """Number of sketches, spread evenly over the split; 0: all."""
    disturb: tuple[float, ...] = (0.0, 0.1, 0.3)
    """How far to move strokes, in sketch sizes (r of METHOD 3); each value is one task, 0 being synthesis."""
    resamples: int = option(1000, at_least=1, at_most=10**6)
    """Number of bootstrap resamples for the confidence intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        is_right = bool(self.disturb) and all(0 <= each <= _MOST_DISTURBANCE for each in self.disturb)
        require(is_right, "disturb", f"distances from 0 to {_MOST_DISTURBANCE:g} sketch sizes", self.disturb)
        require(len(set(self.disturb)) == len(self.disturb), "disturb", "distinct distances", self.disturb)

    @property
    def tasks(self) -> dict[str, float]:
        """The values of `disturb`, by their task names in the results."""
        return {f"reorganization:{disturb:g}" if disturb else "synthesis": disturb for disturb in self.disturb}
