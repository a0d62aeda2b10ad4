"""Checkpoints are written while training goes on, and what cannot be written stops it only after a few times."""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from sgloc.config import Config, TrainConfig
from sgloc.data.manifest import load_manifest
from sgloc.errors import CheckpointError, ConfigError
from sgloc.train import saving as saving_module
from sgloc.train.checkpoint import Peers, checkpoint_steps, read_checkpoint, read_tensors
from sgloc.train.checkpoint.storage import Storage
from sgloc.train.engine import Engine
from sgloc.train.engine.protocol import meta
from sgloc.train.loop import train
from sgloc.train.saving import Saving
from sgloc.train.state import TrainState
from tests.checkpoints import SHARD, flip_bit, model_config, single_process, step_path
from tests.train.launch import losses
from tests.train.test_loop import make_config, records


class OneWeight:
    """As much of an engine as saving needs."""

    name = "stub"

    def __init__(self) -> None:
        self.weight = torch.zeros(3, 2).t()

    def layout(self) -> dict[str, Tensor]:
        """See `Engine.layout`."""
        return {"model.weight": meta(self.weight)}

    def snapshot(self, mine: Callable[[str], bool]) -> dict[str, Tensor]:
        """See `Engine.snapshot`."""
        return {name: self.weight.clone() for name in self.layout() if mine(name)}


class Run:
    """A run that does nothing but save."""

    def __init__(self, run_dir: str, shards: str, check: Callable[[], None] = lambda: None, **options: Any) -> None:
        self.group = contextlib.ExitStack()
        self.group.enter_context(single_process())
        manifest = load_manifest(shards)
        self.config = Config(model=model_config(), train=TrainConfig(run_dir=run_dir, **options))
        self.state, self.weights, self.told = TrainState(), OneWeight(), list[str]()
        self.peers = Peers(60)
        self.engine = cast("Engine", self.weights)
        self.saving = Saving(self.config, manifest, self.engine, self.peers, None, say=self.told.append, check=check)

    def save(self, step: int) -> None:
        """Save at a step whose weights are that number."""
        self.state.step = step
        self.weights.weight.fill_(step)
        self.saving.save(self.engine, self.state)

    def save_at_last(self) -> None:
        self.saving.save_at_last(self.engine, self.state)

    def saved(self, step: int) -> Tensor:
        folder = str(step_path(Path(self.config.train.run_dir), step))
        return dict(read_tensors(folder, read_checkpoint(folder)))["model.weight"]

    @property
    def failures(self) -> list[str]:
        """What was told of failures: a busy machine may make saves wait, which is told, too."""
        return [sentence for sentence in self.told if not sentence.startswith("training waited")]

    def close(self) -> None:
        self.saving.close()
        self.peers.close()
        self.group.close()


class Gate:
    """Holds every write of a file of tensors until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        write = Storage.write

        def wait(storage: Storage, name: str, chunks: Iterable[bytes | memoryview]) -> None:
            self.reached.set()
            assert self.open.wait(30)
            write(storage, name, chunks)

        monkeypatch.setattr(Storage, "write", wait)


def test_training_goes_on_and_what_it_changes_is_not_saved(
    tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with contextlib.closing(Run(str(tmp_path), tiny_shards)) as run:
        run.state.skipped_shards = ["one"]
        run.save(7)
        assert gate.reached.wait(30)
        assert checkpoint_steps(str(tmp_path)) == []
        run.weights.weight.fill_(-1)
        run.state.step = 8
        run.state.skipped_shards.append("another")
        gate.open.set()
        run.saving.wait()
        assert checkpoint_steps(str(tmp_path)) == [7]
        assert run.saved(7).tolist() == [[7.0] * 3] * 2
        state = read_checkpoint(str(step_path(tmp_path, 7))).state
        assert (state["step"], state["skipped_shards"]) == (7, ["one"])
        assert run.failures == []


def test_the_next_save_waits_for_the_one_before_and_says_so(
    tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr(saving_module, "_NOTICEABLE_SECONDS", 0.2)
    with contextlib.closing(Run(str(tmp_path), tiny_shards)) as run:
        run.save(1)
        threading.Timer(0.5, gate.open.set).start()
        run.save(2)
        assert checkpoint_steps(str(tmp_path))[-1] == 1
        assert re.fullmatch(r"training waited \d+\.\d s for the checkpoint of step 1 to be written", run.told[0])
        run.save_at_last()
        run.save_at_last()
        assert checkpoint_steps(str(tmp_path)) == [2, 1]
        assert [path.name for path in (tmp_path / "checkpoints").glob("*.tmp")] == []
        assert [float(run.saved(step)[0, 0]) for step in (1, 2)] == [1.0, 2.0]


def fill_disk(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Let the disk be full at saves of these steps, each as often as it is named."""
    left = list(steps)

    def failpoint(place: str, step: int) -> bool:
        if place == "checkpoint.written" and step in left:
            left.remove(step)
            raise OSError(28, os.strerror(28))
        return False

    monkeypatch.setattr("sgloc.train.checkpoint.writing.failpoint", failpoint)


def test_saves_that_fail_are_told_and_only_too_many_in_a_row_stop_the_run(
    tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, 1, 2, 4, 5, 6)
    with contextlib.closing(Run(str(tmp_path), tiny_shards, save_attempts=3)) as run:
        for step in range(1, 7):
            run.save(step)
        with pytest.raises(CheckpointError) as caught:
            run.save(7)
        assert run.failures == [
            f"checkpoint of step {step} could not be written ([Errno 28] No space left on device); "
            f"the next is tried at the next save; {count} of 3"
            for step, count in ((1, 1), (2, 2), (4, 1), (5, 2), (6, 3))
        ]
        assert "3 saves in a row could not be written" in str(caught.value)
        assert "No space left on device; the newest is that of step 3;" in str(caught.value)
        assert not caught.value.told
        assert checkpoint_steps(str(tmp_path)) == [3]


def test_the_last_save_is_tried_again(tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving_module, "_PAUSE_SECONDS", 0.01)
    fill_disk(monkeypatch, 1, 2, 3, 3, 4, 4, 4, 4)
    with contextlib.closing(Run(str(tmp_path), tiny_shards, save_attempts=4)) as run:
        for step in (1, 2, 3):
            run.save(step)
        run.save_at_last()
        assert checkpoint_steps(str(tmp_path)) == [3]
        # However many have failed before, it is tried as often as any.
        assert [sentence.rsplit("; ", 2)[1:] for sentence in run.failures] == [
            ["the next is tried at the next save", "1 of 4"],
            ["the next is tried at the next save", "2 of 4"],
            ["the next is tried at the next save", "3 of 4"],
            ["it is tried again", "1 of 4"],
        ]
        run.state.step = 4
        with pytest.raises(CheckpointError, match=r"4 saves in a row .*; the newest is that of step 3; make room"):
            run.save_at_last()
        assert checkpoint_steps(str(tmp_path)) == [3]


def test_a_folder_that_another_run_has_claimed_is_left_to_it(tiny_shards: str, tmp_path: Path) -> None:
    def check() -> None:
        raise ConfigError("another run has been started")

    with contextlib.closing(Run(str(tmp_path), tiny_shards, check)) as run:
        run.save(1)
        with pytest.raises(ConfigError, match="another run has been started"):
            run.saving.wait()
        assert checkpoint_steps(str(tmp_path)) == []


def test_a_run_goes_on_when_a_checkpoint_cannot_be_written(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"checkpoint_every": 2, "keep_checkpoints": 9, "num_steps": 7, "validate_every": 7}
    train(make_config(sample_shards, tmp_path / "whole", **options), "auto")
    monkeypatch.setenv("SGLOC_FAILPOINT", "checkpoint.half:full:4")
    train(make_config(sample_shards, tmp_path / "failed", **options), "auto")
    assert "checkpoint of step 4 could not be written ([Errno 28]" in capsys.readouterr().err
    assert checkpoint_steps(str(tmp_path / "failed")) == [7, 6, 2]
    whole, failed = (records(tmp_path / name, "train") for name in ("whole", "failed"))
    assert losses(failed) == losses(whole)
    # At every attempt.
    monkeypatch.setenv("SGLOC_FAILPOINT", "checkpoint.half:full")
    with pytest.raises(CheckpointError, match=r"2 saves in a row could not .*; there is no checkpoint; make room"):
        train(make_config(sample_shards, tmp_path / "none", **options, save_attempts=2), "auto")
    assert checkpoint_steps(str(tmp_path / "none")) == []
    assert [line["step"] for line in records(tmp_path / "none", "train")] == [1, 2, 3, 4, 5, 6]
    # Half of a checkpoint is not left to fill the disk.
    assert list((tmp_path / "none/checkpoints").iterdir()) == []


def test_damaged_checkpoints_of_later_steps_do_not_count_as_the_newest(sample_shards: str, tmp_path: Path) -> None:
    for num_steps, every in ((6, 6), (9, 1)):
        options = {"num_steps": num_steps, "checkpoint_every": every, "validate_every": 99, "keep_checkpoints": 9}
        train(make_config(sample_shards, tmp_path, **options), "auto")
    for step in (7, 8, 9):
        flip_bit(step_path(tmp_path, step) / SHARD, 4321)
    options = {"num_steps": 7, "checkpoint_every": 7, "validate_every": 99, "keep_checkpoints": 2}
    train(make_config(sample_shards, tmp_path, **options), "auto")
    assert checkpoint_steps(str(tmp_path)) == [7, 6]
    for step in (6, 7):
        read_checkpoint(str(step_path(tmp_path, step)))
