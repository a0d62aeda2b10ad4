"""Loggers that cannot stop a run."""

import collections
import logging
from collections.abc import Callable

from sgloc.train.loggers.protocol import Logger, Record

logger = logging.getLogger(__name__)


class Guarded:
    """A logger whose failures are told, each kind once, and counted, while training goes on."""

    def __init__(self, logger: Logger) -> None:
        self.logger, self.name = logger, logger.name
        self._num_failures: collections.Counter[object] = collections.Counter()

    def log(self, record: Record) -> None:
        """Pass a record on."""
        self._try(lambda: self.logger.log(record), f"at step {record['step']}")

    def show(self, name: str, step: int, png: bytes) -> None:
        """Pass a picture on."""
        self._try(lambda: self.logger.show(name, step, png), f"at step {step}")

    def flush(self) -> None:
        """Pass on that a checkpoint comes."""
        self._try(self.logger.flush, "before a checkpoint")

    def close(self) -> None:
        """Close the logger, and say how often it failed."""
        self._try(self.logger.close, "at the end")
        if self._num_failures:
            logger.warning("%s failed %d times since this start of the run", self.name, self._num_failures.total())

    def _try(self, action: Callable[[], None], when: str) -> None:
        try:
            action()
        except Exception as error:
            kind = (type(error), getattr(error, "errno", None))
            self._num_failures[kind] += 1
            if self._num_failures[kind] == 1:
                said = f"{self.name} failed {when} ({describe(error)}); training goes on, and this is not said again"
                logger.warning("%s", said)


def describe(error: Exception) -> str:
    """An error in a few words."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error).strip().partition("\n")[0] or type(error).__name__
