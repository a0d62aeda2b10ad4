"""Loggers: what they write, how they continue a resumed run, and that their failures do not stop training."""

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sgloc import log
from sgloc.config import LogConfig
from sgloc.errors import ConfigError
from sgloc.models.sketchgloc.config import Config, TrainConfig
from sgloc.train.loggers.base import Loggers
from sgloc.train.loggers.jsonl import JSONLines
from sgloc.train.loggers.open import open_loggers
from sgloc.train.loggers.tensorboard import TensorBoard
from sgloc.train.loggers.terminal import Terminal

# The shortest start of a PNG file that contains the image's size.
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x03\x00\x00\x00\x02"


@pytest.fixture(autouse=True)
def _configured() -> None:
    """Configure logging as the command line does."""
    log.configure()


def record(step: int, **values: Any) -> dict[str, Any]:
    return {"step": step, "event": "train", "loss": step / 10, **values}


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@contextlib.contextmanager
def full_disk(path: Path, room: int) -> Iterator[None]:
    """Simulate a full disk: limit every file to `room` bytes more than the size of `path`; what fits is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def event_file(folder: Path) -> Path:
    return max(folder.glob("*tfevents*"))


def read_events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


# metrics.jsonl


@pytest.mark.parametrize("where", ["local", "remote"])
def test_a_resumed_run_drops_what_will_come_again(tmp_path: Path, where: str) -> None:
    folder = str(tmp_path) if where == "local" else f"memory://{tmp_path.name}"
    path = f"{folder}/metrics.jsonl"
    logger = JSONLines(folder, 0)
    for step in (1, 2, 3):
        logger.log(record(step))
    logger.close()
    with fsspec.open(path) as stream:
        whole = stream.read()
    with fsspec.open(path, "wb") as stream:
        stream.write(whole[:-5])
    logger = JSONLines(folder, 2)
    logger.log(record(3, loss=7.0))
    with fsspec.open(path) as stream:
        lines = [json.loads(line) for line in stream.read().splitlines()]
    assert [line["loss"] for line in lines] == [0.1, 0.2, 7.0]


def test_lines_are_written_once_the_disk_has_room_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = Loggers(JSONLines(str(tmp_path), 0))
    logger.log(record(1))
    with full_disk(path, 7):
        logger.log(record(2))
        logger.log(record(3))
    told = capsys.readouterr().err
    assert told.count("metrics.jsonl failed at step 2 (File too large); training continues") == told.count("\n") == 1
    logger.log(record(4))
    assert steps_in(path) == [1, 2, 3, 4]
    with full_disk(path, 0):
        logger.log(record(5))
    logger.close()
    assert steps_in(path) == [1, 2, 3, 4, 5]
    assert capsys.readouterr().err == "metrics.jsonl failed 3 times since the run was started or resumed\n"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_lines_that_are_lost_in_the_end_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = Loggers(JSONLines(str(tmp_path), 0))
    logger.log(record(1))
    with full_disk(tmp_path / "metrics.jsonl", 0):
        logger.log(record(2))
        logger.log(record(3))
        capsys.readouterr()
        logger.close()
    assert "failed 3 times" in capsys.readouterr().err
    assert steps_in(tmp_path / "metrics.jsonl") == [1]


def test_a_store_that_fails_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = JSONLines("memory://store", 0)
    tries = []

    def fail(_: object, path: str, *__: object, **___: object) -> None:
        tries.append(path)
        raise TimeoutError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr("fsspec.implementations.memory.MemoryFileSystem._open", fail)
        with pytest.raises(TimeoutError):
            logger.log(record(1))
        # Each of these calls would wait for the store if it tried.
        logger.log(record(2))
        logger.flush()
        assert len(tries) == 1
    logger.close()
    with fsspec.open("memory://store/metrics.jsonl") as stream:
        assert [json.loads(line)["step"] for line in stream.read().splitlines()] == [1, 2]


def test_a_store_is_written_once_a_minute_and_with_each_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> list[int]:
        with fsspec.open("memory://paced/metrics.jsonl") as stream:
            return [json.loads(line)["step"] for line in stream.read().splitlines()]

    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    logger = JSONLines("memory://paced", 0)
    for step in (1, 2, 3):
        logger.log(record(step))
        now += 25
    assert written() == [1]
    logger.log(record(4))
    assert written() == [1, 2, 3, 4]
    logger.log(record(5))
    assert written() == [1, 2, 3, 4]
    logger.flush()
    assert written() == [1, 2, 3, 4, 5]
    times = fsspec.filesystem("memory").modified("/paced/metrics.jsonl")
    logger.flush()
    assert fsspec.filesystem("memory").modified("/paced/metrics.jsonl") == times
    logger.log(record(6))
    logger.close()
    assert written() == [1, 2, 3, 4, 5, 6]


# Terminal


def test_a_terminal_that_is_gone_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        log.configure()
        Terminal(10).log(record(1, note="text"))
        stream.flush()
        assert os.read(reader, 100) == b"      1/10 train      loss 0.1  note text\n"
        os.close(reader)
        Terminal(10).log(record(2))
        with contextlib.suppress(BrokenPipeError):
            stream.close()
    Terminal(10).log(record(3))


# TensorBoard


def test_tensorboard_has_the_curves_and_forgets_what_comes_again(tmp_path: Path) -> None:
    first = TensorBoard(str(tmp_path), 0)
    for step in (1, 2, 3, 4):
        first.log(record(step, note="text", nothing=None, best_step=7))
    # Events are on disk immediately, in case the run is killed.
    assert [event.step for event in read_events(tmp_path).Scalars("train/loss")] == [1, 2, 3, 4]
    second = TensorBoard(str(tmp_path), 2)
    second.log(record(3, loss=7.0))
    second.show("gallery/generated", 3, PNG)
    second.close()
    first.close()
    events = read_events(tmp_path)
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/best_step"}
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx([0.1, 0.2, 7.0])
    (image,) = events.Images("gallery/generated")
    assert (image.step, image.width, image.height, image.encoded_image_string) == (3, 3, 2, PNG)


def test_tensorboard_goes_on_in_the_same_file_after_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = Loggers(TensorBoard(str(tmp_path), 0))
    logger.log(record(1))
    with full_disk(event_file(tmp_path), 7):
        logger.log(record(2))
    with full_disk(tmp_path / "..", -(tmp_path / "..").stat().st_size):
        logger.log(record(3))
        logger.log(record(4))
    logger.log(record(5))
    logger.close()
    assert [event.step for event in read_events(tmp_path).Scalars("train/loss")] == [1, 5]
    assert len(list(tmp_path.iterdir())) == 1
    assert capsys.readouterr().err.splitlines() == [
        "TensorBoard failed at step 2 (File too large); training continues, and this warning is not repeated",
        "TensorBoard failed 3 times since the run was started or resumed",
    ]


# Opening


def make_config(run_dir: str, **options: Any) -> Config:
    return Config(train=TrainConfig(run=run_dir), log=LogConfig(**options))


def test_only_what_is_asked_for_is_opened_and_what_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loggers = Loggers()
    assert open_loggers(loggers, make_config(str(tmp_path)), 0, "kept") == "kept"
    assert [logger.name for logger in loggers.members] == ["metrics.jsonl", "the terminal"]
    loggers.close()
    with pytest.raises(ConfigError, match="local"):
        open_loggers(Loggers(), make_config("memory://run", tensorboard=True), 0, None)
    with pytest.raises(ConfigError, match=r"cannot write the metrics of .*metrics\.jsonl.*choose another"):
        open_loggers(Loggers(), make_config(str(tmp_path / "metrics.jsonl")), 0, None)
    for module in ("tensorboard.compat.proto", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'sgloc\[tensorboard\]'"):
        open_loggers(Loggers(), make_config(str(tmp_path), tensorboard=True), 0, None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        open_loggers(Loggers(), make_config(str(tmp_path), wandb="offline"), 0, None)
