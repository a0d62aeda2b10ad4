"""Asynchronous saving: checkpoints are written while training continues; only repeated failures stop the run."""

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from sgloc.cli import main
from sgloc.data.manifest import load_manifest
from sgloc.errors import CheckpointError, ConfigError
from sgloc.models.sketchgloc.config import Config, TrainConfig
from sgloc.storage import Storage
from sgloc.train.checkpoint import manager as manager_module
from sgloc.train.checkpoint.load import checkpoint_steps, read_checkpoint, read_tensors
from sgloc.train.checkpoint.manager import CheckpointManager
from sgloc.train.engine import Engine
from sgloc.train.state import TrainState
from tests.checkpoints import SHARD, find_checkpoint, flip_bit, model_config, single_process, step_path
from tests.logged import collected
from tests.patience import PATIENCE
from tests.train.launch import losses
from tests.train.runs import make_config, records, train


class OneWeight:
    """The parts of an engine that saving needs."""

    name = "stub"

    def __init__(self) -> None:
        self.weight = torch.zeros(3, 2).t()

    def layout(self) -> dict[str, Tensor]:
        """See `Engine.layout`."""
        return {"model.weight": torch.empty_like(self.weight, device="meta")}

    def snapshot(self, mine: Callable[[str], bool]) -> dict[str, Tensor]:
        """See `Engine.snapshot`."""
        return {name: self.weight.clone() for name in self.layout() if mine(name)}


class Run:
    """A run that only saves checkpoints."""

    def __init__(self, run_dir: str, shards: str, check: Callable[[], None] = lambda: None, **options: Any) -> None:
        self.group = contextlib.ExitStack()
        group = self.group.enter_context(single_process())
        self.told = self.group.enter_context(collected())
        manifest = load_manifest(shards)
        self.config = Config(model=model_config(), train=TrainConfig(run=run_dir, **options))
        self.state, self.weights = TrainState(), OneWeight()
        writers = self.group.enter_context(contextlib.closing(group.separate()))
        self.engine = cast("Engine", self.weights)
        state = self.state
        self.saving = CheckpointManager(self.config, manifest, self.engine, state, group, writers, None, check=check)

    def save(self, step: int, loss: float | None = None) -> None:
        """Save at a step, with all weights equal to the step's number; with a validation loss, save it as the best."""
        self.state.step = step
        if loss is not None:
            self.state.best_step, self.state.best_loss = step, loss
        self.weights.weight.fill_(step)
        self.saving.save(loss)

    def save_at_last(self) -> None:
        self.saving.save_at_last()

    def saved(self, step: int) -> Tensor:
        folder = str(step_path(Path(self.config.train.run), step))
        return dict(read_tensors(folder, read_checkpoint(folder)))["model.weight"]

    @property
    def failures(self) -> list[str]:
        """The logged save failures, without retries and without waits, which a busy machine may cause."""
        return [
            sentence
            for sentence in self.told
            if not sentence.startswith("training waited") and "; attempt " not in sentence
        ]

    def close(self) -> None:
        self.saving.close()
        self.group.close()


class Gate:
    """Blocks every write of a tensor file until the gate is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        write = Storage.write

        def wait(storage: Storage, name: str, chunks: Iterable[bytes | memoryview]) -> None:
            self.reached.set()
            assert self.open.wait(PATIENCE)
            write(storage, name, chunks)

        monkeypatch.setattr(Storage, "write", wait)


def test_training_goes_on_and_what_it_changes_is_not_saved(
    tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with contextlib.closing(Run(str(tmp_path), tiny_shards)) as run:
        run.state.skipped_shards = ["one"]
        run.save(7)
        assert gate.reached.wait(PATIENCE)
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
    monkeypatch.setattr(manager_module, "_NOTICEABLE_SECONDS", 0.2)
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
    """Simulate a full disk when these steps are saved; a step listed several times fails that many times."""
    left = list(steps)

    def failpoint(place: str, step: int) -> bool:
        if place == "checkpoint.written" and step in left:
            left.remove(step)
            raise OSError(28, os.strerror(28))
        return False

    monkeypatch.setattr("sgloc.train.checkpoint.writer.failpoint", failpoint)


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
            f"will retry at the next save; failure {count} of 3"
            for step, count in ((1, 1), (2, 2), (4, 1), (5, 2), (6, 3))
        ]
        assert "3 consecutive saves to " in str(caught.value)
        assert "No space left on device; the newest checkpoint is of step 3;" in str(caught.value)
        assert not caught.value.told
        assert checkpoint_steps(str(tmp_path)) == [3]


def test_the_last_save_is_tried_again(tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "_PAUSE_SECONDS", 0.01)
    fill_disk(monkeypatch, 1, 2, 3, 3, 4, 4, 4, 4)
    with contextlib.closing(Run(str(tmp_path), tiny_shards, save_attempts=4)) as run:
        for step in (1, 2, 3):
            run.save(step)
        run.save_at_last()
        assert checkpoint_steps(str(tmp_path)) == [3]
        # Earlier failures do not reduce the attempts of the last save.
        assert [sentence.rsplit("; ", 2)[1:] for sentence in run.failures] == [
            ["will retry at the next save", "failure 1 of 4"],
            ["will retry at the next save", "failure 2 of 4"],
            ["will retry at the next save", "failure 3 of 4"],
            ["retrying", "failure 1 of 4"],
        ]
        run.state.step = 4
        with pytest.raises(
            CheckpointError, match=r"4 consecutive saves .*; the newest checkpoint is of step 3; free disk"
        ):
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
    # Now every attempt fails.
    monkeypatch.setenv("SGLOC_FAILPOINT", "checkpoint.half:full")
    with pytest.raises(CheckpointError, match=r"2 consecutive saves .* failed.*; there is no checkpoint; free disk"):
        train(make_config(sample_shards, tmp_path / "none", **options, save_attempts=2), "auto")
    assert checkpoint_steps(str(tmp_path / "none")) == []
    assert [line["step"] for line in records(tmp_path / "none", "train")] == [1, 2, 3, 4, 5, 6]
    # Partly written checkpoints are removed, so that they do not fill the disk.
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


def test_the_best_weights_stay_in_memory_until_they_are_committed(
    tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, 2, 2)
    with contextlib.closing(Run(str(tmp_path), tiny_shards, save_attempts=9, keep_checkpoints=1)) as run:
        run.save(1, loss=5.0)
        run.save(2, loss=3.0)
        run.save(3)
        run.saving.wait()
        # The previous best is kept until the new one is committed.
        assert (run.saving.holds(2), checkpoint_steps(str(tmp_path))) == (True, [3, 1])
        assert (run.state.saved_best_step, run.state.saved_best_loss) == (1, 5.0)
        run.save(4)
        run.saving.wait()
        assert (run.saving.holds(2), checkpoint_steps(str(tmp_path))) == (False, [4, 2])
        assert (run.state.saved_best_step, run.state.saved_best_loss) == (2, 3.0)
        assert run.saved(2).tolist() == [[2.0] * 3] * 2
        assert read_checkpoint(str(step_path(tmp_path, 2))).state["step"] == 2
        assert find_checkpoint(str(tmp_path)) == str(step_path(tmp_path, 2))
        assert "its weights, the best so far, are kept in memory until then" in run.failures[0]
        run.save(5)
        run.saving.wait()
        assert checkpoint_steps(str(tmp_path)) == [5, 2]


def test_a_later_best_takes_the_place_of_one_that_is_not_committed(
    tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, 1, 1, 1)
    with contextlib.closing(Run(str(tmp_path), tiny_shards)) as run:
        run.save(1, loss=3.0)
        run.save(2, loss=2.0)
        run.save_at_last()
        assert checkpoint_steps(str(tmp_path)) == [2]
        assert (run.state.saved_best_step, run.saving.holds(1)) == (2, False)


def test_the_best_is_saved_at_last_or_named(tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "_PAUSE_SECONDS", 0.01)
    fill_disk(monkeypatch, 1, 1, 1, *[3] * 5)
    with contextlib.closing(Run(str(tmp_path), tiny_shards, save_attempts=3)) as run:
        run.save(1, loss=3.0)
        run.save(2)
        run.save_at_last()
        assert checkpoint_steps(str(tmp_path)) == [2, 1]
        run.save(3, loss=2.0)
        run.state.step = 4
        with pytest.raises(CheckpointError, match=r"step 4; the best weights, of step 3 \(validation loss 2.0000\)"):
            run.save_at_last()
        assert checkpoint_steps(str(tmp_path)) == [4, 2, 1]
        with collected() as told:
            assert find_checkpoint(str(tmp_path)) == str(step_path(tmp_path, 1))
        (sentence,) = told
        assert f"the best checkpoint of {tmp_path}, of step 3 (validation loss 2.0000), is missing" in sentence
        assert sentence.endswith("step-00000001 instead")


def stand_in_the_way(monkeypatch: pytest.MonkeyPatch, run_dir: Path, step: int, until: int) -> None:
    """Make the checkpoint of a step fail until the run reaches step `until`: a file takes the name of its folder."""
    obstacle = Path(f"{step_path(run_dir, step)}.tmp")

    def failpoint(place: str, at: int) -> None:
        if (place, at) == ("step", step):
            obstacle.parent.mkdir(parents=True, exist_ok=True)
            obstacle.touch()
        if (place, at) == ("step", until):
            obstacle.unlink()

    monkeypatch.setattr("sgloc.train.trainer.failpoint", failpoint)


def validate_to(monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
    """Make successive validations return these losses."""
    left = iter(losses)
    monkeypatch.setattr("sgloc.train.validation.Validation.__call__", lambda *_: {"loss": next(left)})


def test_a_run_whose_best_could_not_be_saved_at_once_has_it_in_the_end(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"num_steps": 6, "validate_every": 2, "keep_checkpoints": 1, "save_attempts": 9}
    for name in ("whole", "failed"):
        validate_to(monkeypatch, 5.0, 3.0, 4.0)
        with monkeypatch.context() as patch:
            if name == "failed":
                stand_in_the_way(patch, tmp_path / name, 4, 6)
            train(make_config(sample_shards, tmp_path / name, **options), "auto")
    assert "checkpoint of step 4 could not be written" in capsys.readouterr().err
    whole, failed = (read_checkpoint(find_checkpoint(str(tmp_path / name))) for name in ("whole", "failed"))
    assert failed.step == whole.step == 4
    assert failed.files == whole.files
    assert checkpoint_steps(str(tmp_path / "failed")) == [6, 4]


def test_a_best_that_died_with_its_process_is_named_and_the_best_of_the_rest_is_kept(
    sample_shards: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(manager_module, "_PAUSE_SECONDS", 0.01)
    options = {"validate_every": 2, "keep_checkpoints": 1, "save_attempts": 1, "patience": 9}
    validate_to(monkeypatch, 5.0, 3.0, 4.0)
    with monkeypatch.context() as patch:
        stand_in_the_way(patch, tmp_path, 4, 99)
        with pytest.raises(CheckpointError, match="the best weights, of step 4"):
            train(make_config(sample_shards, tmp_path, num_steps=5, **options), "auto")
    assert checkpoint_steps(str(tmp_path)) == [2]
    Path(f"{step_path(tmp_path, 4)}.tmp").unlink()
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        main(["checkpoint", "list", str(tmp_path)])
    # The run resumes from step 2 and repeats step 4.
    validate_to(monkeypatch, 3.0, 4.0)
    train(make_config(sample_shards, tmp_path, num_steps=5, **options), "auto")
    assert checkpoint_steps(str(tmp_path)) == [5, 4]
    # Now the best checkpoint is removed from outside.
    shutil.rmtree(step_path(tmp_path, 4))
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        main(["checkpoint", "list", str(tmp_path)])
    sentence = f"the best checkpoint of {tmp_path}, of step 4 (validation loss 3.0000), is missing"
    assert sentence in capsys.readouterr().err
    validate_to(monkeypatch, 4.0, 4.5, 4.2)
    train(make_config(sample_shards, tmp_path, num_steps=9, **options), "auto")
    said = capsys.readouterr().err
    assert f"{sentence}: it was never written, or was removed; the best checkpoint from here on will be kept" in said
    assert "best validation loss 3.0000 at step 4, whose weights are lost; best saved weights: 4.0000 at step 6" in said
    assert checkpoint_steps(str(tmp_path)) == [9, 6]
    with collected() as told:
        assert find_checkpoint(str(tmp_path)) == str(step_path(tmp_path, 6))
    assert told[0].startswith(sentence)


def test_a_branch_from_the_best_checkpoint_of_another_run_has_a_best_of_its_own(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"validate_every": 2, "keep_checkpoints": 1}
    validate_to(monkeypatch, 3.0, 4.0)
    train(make_config(sample_shards, tmp_path / "first", num_steps=2, **options), "auto")
    best = str(step_path(tmp_path / "first", 2))
    train(make_config(sample_shards, tmp_path / "branch", num_steps=4, **options), best)
    assert checkpoint_steps(str(tmp_path / "branch")) == [4, 2]
    assert find_checkpoint(str(tmp_path / "branch")) == str(step_path(tmp_path / "branch", 2))
