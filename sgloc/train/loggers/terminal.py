"""The logger that shows a run's progress in the terminal."""

import contextlib
import logging
from typing import Any

from sgloc.terminal import progress
from sgloc.train.loggers.base import Logger, Record

logger = logging.getLogger(__name__)


class Terminal(Logger):
    """Logs each record as a line and, on a terminal, shows a progress bar of the steps below."""

    name = "the terminal"

    def __init__(self, num_steps: int, step: int = 0) -> None:
        self.num_steps = num_steps
        self._resources = contextlib.ExitStack()
        self._advance = self._resources.enter_context(progress("steps", num_steps, says_lines=False))
        self._advance(step)

    def log(self, record: Record) -> None:
        """Log a record, and advance the progress bar."""
        values = "  ".join(f"{name} {_short(value)}" for name, value in record.items() if name not in ("step", "event"))
        logger.info("%7d/%d %-10s %s", record["step"], self.num_steps, record["event"], values)
        self._advance(record["step"])

    def close(self) -> None:
        """Remove the progress bar."""
        self._resources.close()


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
