"""The logger interface, and the collection of a run's loggers, whose failures never stop training."""

import collections
import logging
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]

_log = logging.getLogger(__name__)


class Logger:
    """Base class of a sink for a run's records and pictures; subclasses override what they support.

    Loggers exist only on rank 0. `Loggers` reports and counts any exception that a method raises.

    Attributes:
        name: display name.
    """

    name: str

    def log(self, record: Record) -> None:
        """Log a record, which contains a "step" and an "event"."""

    def show(self, name: str, step: int, png: bytes) -> None:
        """Log a picture of a step."""

    def flush(self) -> None:
        """Make everything logged so far durable; called before a checkpoint is written."""

    def close(self) -> None:
        """Finish; no call may follow."""


class Loggers:
    """A run's loggers. Each kind of failure of a logger is reported once, and all are counted; training continues.

    Attributes:
        members: the loggers, in call order.
    """

    def __init__(self, *members: Logger) -> None:
        self.members = list(members)
        self._failures: dict[str, collections.Counter[object]] = collections.defaultdict(collections.Counter)

    def log(self, record: Record) -> None:
        """Pass a record to all loggers."""
        self._each(lambda logger: logger.log(record), f"at step {record['step']}")

    def show(self, name: str, step: int, png: bytes) -> None:
        """Pass a picture to all loggers."""
        self._each(lambda logger: logger.show(name, step, png), f"at step {step}")

    def flush(self) -> None:
        """Flush all loggers."""
        self._each(lambda logger: logger.flush(), "before a checkpoint")

    def close(self) -> None:
        """Close all loggers, and report the number of failures of each."""
        self._each(lambda logger: logger.close(), "at the end")
        for name, failures in self._failures.items():
            _log.warning("%s failed %d times since the run was started or resumed", name, failures.total())

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
                        "%s failed %s (%s); training continues, and this warning is not repeated",
                        logger.name,
                        when,
                        said,
                    )


def in_a_few_words(error: Exception) -> str:
    """Return an error's message in one line."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error).strip().partition("\n")[0] or type(error).__name__


def scalars(record: Record) -> dict[str, float]:
    """Return a record's numbers, keyed by the names of their curves: event/name."""
    return {
        f"{record['event']}/{name}": value
        for name, value in record.items()
        if isinstance(value, (int, float)) and name != "step"
    }
