"""What is evaluated: redrawing sketches as they are, and after their strokes were moved (METHOD 10)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationTask:
    """One task.

    Attributes:
        disturb: r of METHOD 3; 0 is synthesis.
    """

    disturb: float

    @property
    def name(self) -> str:
        """As results have it."""
        return f"reorganization:{self.disturb:g}" if self.disturb else "synthesis"
