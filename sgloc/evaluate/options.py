"""What a trained model is to draw, and how it is measured; the options of commands that use one."""

from dataclasses import dataclass
from typing import Literal

from sgloc.errors import ConfigError
from sgloc.evaluate.tasks import EvaluationTask
from sgloc.inference.rows import ROWS, ROWS_OF_REORGANIZATION

_MOST_DISTURBANCE = 10.0


@dataclass(frozen=True)
class SamplingOptions:
    """How the pen is sampled."""

    temperature: float = 0.0
    """0: greedy; above: sample, 0.24 as published (METHOD 9)."""
    seed: int = 0
    """Seed of all that is random."""

    def __post_init__(self) -> None:
        self._require("temperature", 0, 10**6)
        self._require("seed", 0, 2**63 - 1)

    def _require(self, name: str, least: int, most: int) -> None:
        """Refuse an option that is out of its range; most upper ends only keep numbers finite and memory in bounds."""
        if not least <= getattr(self, name) <= most:
            raise ConfigError(f"{name} must be from {least} to {most:,}, not {getattr(self, name)}")


@dataclass(frozen=True)
class DrawOptions(SamplingOptions):
    """Which sketches are redrawn, and how."""

    split: Literal["train", "valid", "test"] = "test"
    """Which sketches."""
    max_points: int = 0
    """Most points of a drawing; 0: as many as the longest drawing of the model's training data has."""
    batch_size: int = 256
    """Sketches computed together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("max_points", 0, 10**5)
        self._require("batch_size", 1, 10**6)


@dataclass(frozen=True)
class GenerateOptions(DrawOptions):
    """What to redraw, and how."""

    count: int = 64
    """Sketches, spread evenly over the split."""
    disturb: float = 0.0
    """How far strokes are moved before the sketches are redrawn, in sketch sizes (r of METHOD 3); 0: synthesis."""
    rows: tuple[str, ...] = ROWS
    """Rows of the gallery; put_back: the sketch's own strokes, each moved to where the redrawing has it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("count", 1, 10**9)
        self._require("disturb", 0, 10**6)
        unknown = set(self.rows) - set(ROWS)
        if unknown or not self.rows:
            raise ConfigError(f"rows must be some of {', '.join(ROWS)}, not {', '.join(sorted(unknown)) or 'none'}")
        if self.disturb == 0 and set(self.rows) <= set(ROWS_OF_REORGANIZATION):
            raise ConfigError(
                f"rows must be more than {', '.join(self.rows)}, for in synthesis no stroke is moved; "
                "add original or redrawn"
            )


@dataclass(frozen=True)
class EvaluateOptions(DrawOptions):
    """What to measure, and how."""

    count: int = 0
    """Sketches, spread evenly over the split; 0: all."""
    disturb: tuple[float, ...] = (0.0, 0.1, 0.3)
    """How far strokes are moved, each in turn, in sketch sizes (r of METHOD 3); 0: synthesis."""
    resamples: int = 1000
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("count", 0, 10**9)
        self._require("resamples", 1, 10**6)
        if not self.disturb or not all(0 <= each <= _MOST_DISTURBANCE for each in self.disturb):
            raise ConfigError(
                f"disturb must be distances from 0 to {_MOST_DISTURBANCE:g} sketch sizes, not {self.disturb}"
            )
        if len(set(self.disturb)) < len(self.disturb):
            raise ConfigError(f"disturb names a distance twice: {self.disturb}")

    @property
    def tasks(self) -> tuple[EvaluationTask, ...]:
        """One for each distance."""
        return tuple(map(EvaluationTask, self.disturb))
