"""What tests of the command line share: running commands that must fail with one sentence."""

import re
from collections.abc import Callable

import pytest

from sgloc.cli import main

Said = Callable[..., str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command that must fail, and gives its only line."""

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
    """The one line of standard error, which names the command and says more than that."""
    # A progress bar that found no terminal leaves an empty line; a run that gets so far first says where it starts.
    # So does one that tries again what may pass.
    told = re.compile(r"starting anew in |.* follows in [\d.]+ s$")
    lines = [line for line in error.splitlines() if line.strip() and not told.match(line)]
    assert len(lines) == 1, error
    assert re.match(rf"(rank \d+: )?sgloc( {command}( \w+)?)?: \S+ ", lines[0])
    assert "Traceback" not in lines[0]
    return lines[0]
