"""Helpers for command-line tests: run a command that must fail with a one-line message."""

import re
from collections.abc import Callable

import pytest

from sgloc.cli import main

Said = Callable[..., str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Return a function that runs a command that must fail and returns its only line of standard error."""

    def run(*words: object, code: int = 2) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        output = capsys.readouterr()
        assert caught.value.code == code
        assert output.out == ""
        return only_sentence(output.err, str(words[0]))

    return run


def only_sentence(error: str, command: str) -> str:
    """Return the only line of standard error, which must name the command and give a message."""
    # Ignored: the empty line of a progress bar without a terminal, the line that says where a run starts, and
    # the lines that announce a retry after a transient error.
    told = re.compile(r"starting from scratch in |.* follows in [\d.]+ s$")
    lines = [line for line in error.splitlines() if line.strip() and not told.match(line)]
    assert len(lines) == 1, error
    assert re.match(rf"(rank \d+: )?sgloc( {command}( \w+)?)?: \S+ ", lines[0])
    assert "Traceback" not in lines[0]
    return lines[0]
