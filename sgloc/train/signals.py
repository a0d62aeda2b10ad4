"""Signals set a flag; the ranks agree on it at a step boundary (DESIGN contract 5)."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from sgloc.signals import wanted_signals


class StopFlag:
    """Set when this process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            # A second Ctrl-C: somebody does not want to wait for the step to end.
            raise KeyboardInterrupt
        self.requested = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While inside, TERM, INT, HUP, USR1 and USR2 only set the flag; a HUP that nohup ignores stays ignored."""
        before = {number: signal.signal(number, self._set) for number in wanted_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
