"""Loggers of a run: what each takes, and all of them together, none of which can stop the training."""

import collections
import logging
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]

_log = logging.getLogger(__name__)


class Logger:
    """Takes a run's records and pictures, or as much of them as it has a use for. There are loggers on rank 0 alone.

    Whatever a method raises is reported and counted by `Loggers`.

    Attributes:
        name: for people.
    """

    name: str

    def log(self, record: Record) -> None:
        """Take one record, which has a "step" and an "event"."""

    def show(self, name: str, step: int, png: bytes) -> None:
        """Take one picture of a step."""

    def flush(self) -> None:
        """Make sure that everything so far outlives this process. Called before a checkpoint is written."""

    def close(self) -> None:
        """Finish; nothing will follow."""


class Loggers:
    """A run's loggers. A failure of one is reported once for each kind, and counted, while training goes on.

    Attributes:
        members: the loggers, in the order in which they are called.
    """

    def __init__(self, *members: Logger) -> None:
        self.members = list(members)
        self._failures: dict[str, collections.Counter[object]] = collections.defaultdict(collections.Counter)

    def log(self, record: Record) -> None:
        """Give a record to all."""
        self._each(lambda logger: logger.log(record), f"at step {record['step']}")

    def show(self, name: str, step: int, png: bytes) -> None:
        """Give a picture to all."""
        self._each(lambda logger: logger.show(name, step, png), f"at step {step}")

    def flush(self) -> None:
        """Flush all."""
        self._each(lambda logger: logger.flush(), "before a checkpoint")

    def close(self) -> None:
        """Close all, and report how often each failed."""
        self._each(lambda logger: logger.close(), "at the end")
        for name, failures in self._failures.items():
            _log.warning("%s failed %d times since this start of the run", name, failures.total())

    def _each(self, action: Callable[[Logger], None], when: str) -> None:
        for logger in self.members:
            try:
                action(logger)
            except Exception as error:
                failures, kind = self._failures[logger.name], (type(error), getattr(error, "errno", None))
                failures[kind] += 1
                if failures[kind] == 1:
                    said = in_a_few_words(error)
                    _log.warning(
                        "%s failed %s (%s); training goes on, and the same is not repeated", logger.name, when, said
                    )


def in_a_few_words(error: Exception) -> str:
    """What an error says, in one line."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error).strip().partition("\n")[0] or type(error).__name__


def scalars(record: Record) -> dict[str, float]:
    """A record's numbers by the names that their curves have, event/name."""
    return {
        f"{record['event']}/{name}": value
        for name, value in record.items()
        if isinstance(value, (int, float)) and name != "step"
    }
