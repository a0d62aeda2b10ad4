"""What a user sees of a run while it runs."""

import contextlib
import sys
from typing import Any

from sgloc.masking import mask
from sgloc.train.loggers.protocol import Record


def tell(sentence: str) -> None:
    """Print a sentence on standard error, without the secrets of its URLs; where that is gone, to nobody."""
    with contextlib.suppress(OSError, ValueError):
        print(mask(sentence), file=sys.stderr, flush=True)


class Terminal:
    """One line a record on standard error."""

    name = "the terminal"

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def log(self, record: Record) -> None:
        """Print a record."""
        values = "  ".join(f"{name} {_short(value)}" for name, value in record.items() if name not in ("step", "event"))
        tell(f"{record['step']:>7}/{self.num_steps} {record['event']:<10} {values}")

    def show(self, name: str, step: int, png: bytes) -> None:
        """Pictures are no text."""

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is held back."""


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
