"""What the training loop asks of a logger."""

from typing import Any, Protocol

Record = dict[str, Any]


class Logger(Protocol):
    """Takes a run's records and pictures. There are loggers on rank 0 alone.

    Attributes:
        name: for people.
    """

    name: str

    def log(self, record: Record) -> None:
        """Take one record, which has a "step" and an "event"."""
        ...

    def show(self, name: str, step: int, png: bytes) -> None:
        """Take one picture of a step."""
        ...

    def flush(self) -> None:
        """See that what was taken so far outlives this process. Called before a checkpoint is written."""
        ...

    def close(self) -> None:
        """Nothing will follow."""
        ...


def scalars(record: Record) -> dict[str, float]:
    """A record's numbers by the names that their curves have, event/name."""
    return {
        f"{record['event']}/{name}": value
        for name, value in record.items()
        if isinstance(value, (int, float)) and name != "step"
    }
