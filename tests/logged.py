"""Capture of the package's log messages."""

import contextlib
import logging
from collections.abc import Iterator

import pytest


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store the message."""
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Collect every message of level INFO and above while inside."""
    logger, handler = logging.getLogger("sgloc"), _Messages()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The messages that the test has logged so far, level INFO and above."""
    with collected() as messages:
        yield messages
