"""Log output on standard error, for people and for log collectors."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgloc import log

LOGGER = logging.getLogger("sgloc.data.stream")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore the package's logger after the test."""
    logger = logging.getLogger("sgloc")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], level, logger.propagate = before
    logger.setLevel(level)


def speak() -> None:
    """Log one record per level."""
    LOGGER.debug("reads block %d", 7)
    LOGGER.info("reads shards")
    LOGGER.warning("s3://key:secret@bucket is slow")


@pytest.mark.parametrize(
    ("level", "rank", "expected"),
    [
        pytest.param(logging.INFO, 0, ["reads shards", "is slow"], id="rank 0"),
        pytest.param(logging.INFO, 2, ["rank 2: s3"], id="other ranks warn"),
        pytest.param(logging.WARNING, 0, ["is slow"], id="quiet"),
        pytest.param(logging.DEBUG, 2, ["DEBUG: reads block 7", "INFO: reads shards", "WARNING: s3"], id="all"),
    ],
)
def test_ranks_and_levels(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    level: int,
    rank: int,
    expected: list[str],
) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv(log.LEVEL_VARIABLE, logging.getLevelName(level))
    log.configure()
    speak()
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert [words in line for words, line in zip(expected, lines, strict=True)] == [True] * len(lines)
    assert (out, "secret" in err) == ("", False)
    assert level > logging.DEBUG or all(" rank 2 sgloc.data.stream " in line for line in lines)


def test_json_has_an_object_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv(log.FORM_VARIABLE, "json")
    log.configure()
    try:
        raise ValueError("ü\nof two lines")
    except ValueError:
        LOGGER.exception("fails")
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert {name: record[name] for name in ("level", "rank", "module", "message")} == {
        "level": "ERROR",
        "rank": 0,
        "module": "sgloc.data.stream",
        "message": "fails",
    }
    assert record["traceback"].endswith("ValueError: ü\nof two lines")


def test_configuring_twice_repeats_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    log.configure()
    LOGGER.info("once")
    assert capsys.readouterr().err == "once\n"


@pytest.mark.parametrize("stream", ["closed", "full"])
def test_a_standard_error_that_takes_nothing_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stream: str
) -> None:
    log.configure()
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115
    monkeypatch.setattr("sys.stderr", None if stream == "closed" else full)
    LOGGER.info("to nobody")
    with contextlib.suppress(OSError):
        full.close()
    assert capsys.readouterr().out == ""
