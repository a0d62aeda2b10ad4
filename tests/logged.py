"""What the package logs, for tests."""

import contextlib
import logging
from collections.abc import Iterator

import pytest


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """While inside, the list gets every message from INFO on."""
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
    """The messages of the test so far, from INFO on."""
    with collected() as messages:
        yield messages
