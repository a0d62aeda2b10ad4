"""Progress display: a bar on a terminal, occasional log lines elsewhere."""

import logging
import os
import re
import subprocess
import sys

import pytest

from sgloc import log, terminal

PROGRAM = """
import logging, sys
from sgloc import log
from sgloc.terminal import progress
log.configure()
with progress("drawings", 40_000) as advance:
    for done in (0, 10_000, 20_000):
        advance(done, 40_000, "3 [odd] ones")
    logging.getLogger("sgloc.test").info("above the bar")
print("result")
"""
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


WORKING = """
from sgloc import log
from sgloc.terminal import working
log.configure()
with working("writing the model"):
    pass
"""


def on_a_terminal(program: str = PROGRAM, **environment: str) -> tuple[str, str]:
    """Return standard output, a pipe, and the text on a terminal connected to standard error, without colours."""
    leader, follower = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", **environment},
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
    ) as process:
        os.close(follower)
        shown = b""
        try:
            while chunk := os.read(leader, 4096):
                shown += chunk
        except OSError:
            # Reading fails once the process has closed its end.
            pass
        assert process.stdout is not None
        output = process.stdout.read()
    os.close(leader)
    assert process.returncode == 0
    return output, _ESCAPE.sub("", shown.decode())


def test_a_terminal_shows_a_bar_below_what_is_logged() -> None:
    output, shown = on_a_terminal()
    assert output == "result\n"
    assert "20,000/40,000 drawings" in shown
    assert "3 [odd] ones" in shown
    assert "above the bar\r\n" in shown


def test_a_terminal_shows_what_is_going_on_where_nothing_can_be_counted() -> None:
    output, shown = on_a_terminal(WORKING)
    assert output == ""
    assert "writing the model" in shown


@pytest.mark.parametrize(
    "environment",
    [{"SGLOC_LOG_LEVEL": "WARNING"}, {"SGLOC_LOG_FORMAT": "json"}, {"RANK": "1"}],
    ids=["quiet", "json", "another rank"],
)
def test_there_is_no_bar_where_nobody_looks_at_it(environment: dict[str, str]) -> None:
    assert "drawings" not in on_a_terminal(**environment)[1]


def test_elsewhere_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(terminal, "_SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, "sgloc"):
        log.configure()
        with terminal.progress("steps", 9) as advance:
            advance(4)
            advance(5, 10, "a note")
        with terminal.progress("steps", says_lines=False) as advance:
            advance(6)
    assert caplog.messages == ["4 of 9 steps", "5 of 10 steps; a note"]
