"""What is evaluated: redrawing sketches as they are, and after their strokes were moved (METHOD 10)."""

from dataclasses import dataclass

from sgloc.errors import ConfigError

DEFAULT_TASKS = "synthesis,reorganization:0.1,reorganization:0.3"
_MOST_DISTURBANCE = 10.0


@dataclass(frozen=True)
class EvaluationTask:
    """One task.

    Attributes:
        disturb: r of METHOD 3; 0 is synthesis.
    """

    disturb: float

    @property
    def name(self) -> str:
        """As the command line has it."""
        return f"reorganization:{self.disturb:g}" if self.disturb else "synthesis"


def parse_tasks(text: str) -> tuple[EvaluationTask, ...]:
    """Tasks from "synthesis,reorganization:0.1".

    Raises:
        ConfigError: if it is not that, or names a task twice.
    """
    tasks = tuple(_parse(word.strip()) for word in text.split(","))
    if len(set(tasks)) < len(tasks):
        raise ConfigError(f"tasks names a task twice: {text}")
    return tasks


def _parse(word: str) -> EvaluationTask:
    name, _, amount = word.partition(":")
    if word == "synthesis":
        return EvaluationTask(0.0)
    try:
        scale = float(amount)
    except ValueError:
        scale = 0.0
    if name != "reorganization" or not 0 < scale <= _MOST_DISTURBANCE:
        raise ConfigError(
            f"tasks must be synthesis, or reorganization: and how far strokes are moved, above 0 and at most "
            f"{_MOST_DISTURBANCE:g} sketch sizes, such as {DEFAULT_TASKS}; not {word!r}"
        )
    return EvaluationTask(scale)
