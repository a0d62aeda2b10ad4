"""The training loop in one process: what it logs, and when it validates, saves and stops."""

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch._dynamo.testing import CompileCounter

from sgloc.config import OptimizerConfig
from sgloc.data.batch import PackedBatch
from sgloc.data.manifest import load_manifest
from sgloc.data.stream import fixed_batches
from sgloc.errors import ConfigError, DataError, TrainingError
from sgloc.models.sketchgloc.config import TrainConfig
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.models.sketchgloc.recipe import SketchGlocRecipe
from sgloc.train.checkpoint.load import checkpoint_steps
from sgloc.train.schedule import learning_rate
from sgloc.train.validation import Validation
from tests.checkpoints import find_checkpoint
from tests.train.runs import make_config, open_run, records, train


def test_metrics_hold_what_they_promise(sample_shards: str, tmp_path: Path) -> None:
    config = make_config(sample_shards, tmp_path, log_every=2, precision="bfloat16")
    train(config, "auto")
    lines = records(tmp_path, "train")
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    for line in lines:
        assert line["loss"] == pytest.approx(line["mixture"] + line["pen"])
        assert line["gradient_norm"] > 0
        assert line["learning_rate"] == learning_rate(config.optimizer, line["step"] - 1)
        # The drawings have six points; augmentation drops some of them.
        assert 3 < line["points_per_second"] / line["sketches_per_second"] < 6.001
        assert 0 <= line["data_wait_share"] <= 1
        # PyTorch alone uses more than this.
        assert line["peak_memory_mib"] > 100
    assert [line["step"] for line in records(tmp_path, "validation")] == [4, 8]
    # A few steps are enough to improve an untrained model.
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_losses_in_a_window_are_averaged(sample_shards: str, tmp_path: Path) -> None:
    train(make_config(sample_shards, tmp_path / "each"), "auto")
    train(make_config(sample_shards, tmp_path / "pairs", log_every=2), "auto")
    each = [line["loss"] for line in records(tmp_path / "each", "train")]
    pairs = [line["loss"] for line in records(tmp_path / "pairs", "train")]
    assert pairs == pytest.approx([(a + b) / 2 for a, b in zip(each[::2], each[1::2], strict=True)])


def test_a_stop_inside_a_window_does_not_show(sample_shards: str, tmp_path: Path) -> None:
    train(make_config(sample_shards, tmp_path / "whole", log_every=4), "auto")
    train(make_config(sample_shards, tmp_path / "parts", log_every=4, num_steps=3), "auto")
    train(make_config(sample_shards, tmp_path / "parts", log_every=4), "auto")
    whole, parts = ([line["loss"] for line in records(tmp_path / name, "train")] for name in ("whole", "parts"))
    assert parts == whole


@pytest.mark.parametrize("option", ["compile", "checkpoint_decoder"])
def test_how_it_is_computed_does_not_change_the_losses(
    sample_shards: str, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, compile_steps = CompileCounter(), SketchGloc.compile_steps
    # Capture the graphs but run them eagerly: generating code takes half a minute per graph.
    monkeypatch.setattr(SketchGloc, "compile_steps", lambda model: compile_steps(model, counter))
    train(make_config(sample_shards, tmp_path / "plain", num_steps=3), "auto")
    train(make_config(sample_shards, tmp_path / option, num_steps=2, **{option: True}), "auto")
    # The option may be switched off or on at any resume.
    train(make_config(sample_shards, tmp_path / option, num_steps=3), "auto")
    plain, other = ([line["loss"] for line in records(tmp_path / name, "train")] for name in ("plain", option))
    assert other == pytest.approx(plain, rel=1e-5)
    assert (counter.frame_count > 0) == (option == "compile")


def test_schedule_is_the_published_one() -> None:
    config = OptimizerConfig()
    assert learning_rate(config, 0) == 1e-3
    assert learning_rate(config, 100_000) == pytest.approx((1e-3 - 1e-5) * 0.99999**100_000 + 1e-5)
    assert learning_rate(config, 10_000_000) == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("every", "num_drawings", "batch", "steps"),
    [
        pytest.param(500, 350_000, 100, 500, id="steps"),
        pytest.param("1 epoch", 5 * 70_000, 100, 3_500, id="DS1"),
        pytest.param("1 epoch", 10 * 70_000, 100, 7_000, id="DS2"),
        pytest.param("1 epoch", 8 * 70_000, 100, 5_600, id="DS3"),
        pytest.param("3 epochs", 101, 10, 31, id="rounded up"),
        pytest.param("1 epoch", 3, 100, 1, id="fewer drawings than a batch"),
    ],
)
def test_validation_can_be_counted_in_epochs(every: int | str, num_drawings: int, batch: int, steps: int) -> None:
    assert TrainConfig(validate_every=every, global_batch=batch).validation_interval(num_drawings) == steps


@pytest.mark.parametrize("every", [0, -1, "0 epochs", "1.5 epochs", "an epoch", "-1 epoch", "1 epochs or so", True, ""])
def test_validation_at_no_interval_is_refused(every: int | str) -> None:
    with pytest.raises(
        ConfigError, match=r'train.validate_every must be a number of steps, at least 1, or .*"1 epoch"'
    ):
        TrainConfig(validate_every=every)


def test_a_run_validates_every_epoch_also_where_a_resume_counts_anew(sample_shards: str, tmp_path: Path) -> None:
    # There are 240 drawings, so an epoch is 3 steps.
    options: dict[str, Any] = {"global_batch": 80, "validate_every": "1 epoch"}
    train(make_config(sample_shards, tmp_path, num_steps=4, **options), "auto")
    train(make_config(sample_shards, tmp_path, num_steps=10, **options), "auto")
    assert [line["step"] for line in records(tmp_path, "validation")] == [3, 4, 6, 9, 10]
    train(make_config(sample_shards, tmp_path, num_steps=12, **{**options, "validate_every": 11}), "auto")
    assert [line["step"] for line in records(tmp_path, "validation")][5:] == [11, 12]


@pytest.mark.parametrize(
    ("disturb", "validation_disturb", "expected"),
    [
        pytest.param(0.3, None, (0.3, 0.3), id="as in training"),
        pytest.param(0.3, 0.0, (0.3, 0.0), id="the original"),
        pytest.param(0.0, 0.1, (0.0, 0.1), id="synthesis"),
    ],
)
def test_validation_has_its_own_disturbance_and_is_never_augmented_or_translated(
    sample_shards: str, tmp_path: Path, disturb: float, validation_disturb: float | None, expected: tuple[float, float]
) -> None:
    config = make_config(sample_shards, tmp_path)
    data = dataclasses.replace(config.data, disturb=disturb, validation_disturb=validation_disturb)
    config = dataclasses.replace(config, data=data)
    training, fixed = SketchGlocRecipe().preparations(config, load_manifest(sample_shards))
    assert (training.disturb, fixed.disturb) == expected
    assert training.translate
    assert not fixed.translate
    assert (fixed.augment_scale, fixed.drop_probability) == (0.0, 0.0)


def test_best_checkpoint_stays_and_training_stops_when_nothing_improves(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([5.0, 3.0, 4.0, 3.5, 3.0, 9.9])

    def validate(*_: object) -> dict[str, float]:
        return {"loss": next(losses)}

    monkeypatch.setattr(Validation, "__call__", validate)
    config = make_config(
        sample_shards, tmp_path, num_steps=100, validate_every=1, patience=3, keep_checkpoints=1, checkpoint_every=1
    )
    train(config, "auto")
    # Step 5 is the third validation in a row without a new best; an equal loss does not count as an improvement.
    assert [line["step"] for line in records(tmp_path, "validation")] == [1, 2, 3, 4, 5]
    assert checkpoint_steps(str(tmp_path)) == [5, 2]
    assert find_checkpoint(str(tmp_path)).endswith("step-00000002")
    before = (tmp_path / "metrics.jsonl").read_text()
    train(config, "auto")
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_validation_is_the_same_every_time_and_changes_nothing(sample_shards: str, tmp_path: Path) -> None:
    config = make_config(sample_shards, tmp_path)
    with open_run(config, "auto") as run:
        weights = run.engine.snapshot(lambda name: True)
        first = run.validation(run.engine.model)
        assert first == run.validation(run.engine.model)
        assert run.engine.model.training
        assert first is not None
        after = run.engine.snapshot(lambda name: True)
        assert all(torch.equal(value, weights[name]) for name, value in after.items())
        assert first["loss"] == pytest.approx(first["mixture"] + first["pen"])


def test_the_resolved_configuration_and_the_versions_stand_beside_the_run(sample_shards: str, tmp_path: Path) -> None:
    config = make_config(sample_shards, tmp_path, num_steps=1)
    train(config, "auto")
    # Options left to the environment are written with their resolved values.
    log = dataclasses.replace(config.log, wandb="disabled", wandb_project="sketchgloc")
    expected = dataclasses.asdict(dataclasses.replace(config, log=log))
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == expected
    assert json.loads((tmp_path / "versions.json").read_text())["torch"] == torch.__version__


def test_no_validation_drawing_no_path_and_too_many_processes_are_refused(sample_shards: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path"):
        train(make_config("", tmp_path), "auto")
    manifest = json.loads(Path(sample_shards, "manifest.json").read_text())
    manifest["splits"]["valid"] = {**manifest["splits"]["valid"], "points": {}, "shards": []}
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="no validation drawing"):
        train(make_config(str(tmp_path / "empty"), tmp_path), "auto")


def test_losses_that_stay_infinite_stop_the_run(sample_shards: str, tmp_path: Path) -> None:
    config = make_config(sample_shards, tmp_path, bad_steps=2)
    config = dataclasses.replace(config, optimizer=OptimizerConfig(learning_rate=1e30, min_learning_rate=1e30))
    with pytest.raises(
        TrainingError, match=r"step \d+ is not finite, after 2 consecutive non-finite steps .*bad-steps\.ndjson"
    ):
        train(config, "auto")
    lines = [json.loads(line) for line in (tmp_path / "bad-steps.ndjson").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3, 4]
    assert all(len(set(line["key_ids"])) == 16 and line["rank"] == 0 for line in lines)


def test_a_signal_cuts_a_validation_short_and_the_resumed_run_does_it_again(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Iterator[PackedBatch]:
        for packed in fixed_batches(*arguments, **options):
            yield packed
            os.kill(os.getpid(), signal.SIGTERM)

    train(make_config(sample_shards, tmp_path / "whole"), "auto")
    config = make_config(sample_shards, tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr("sgloc.train.validation.fixed_batches", interrupted)
        train(config, "auto")
    assert "stopped by a signal at step 4" in capsys.readouterr().err
    assert records(tmp_path / "parts", "validation") == []
    assert checkpoint_steps(str(tmp_path / "parts")) == [4]
    train(config, "auto")
    for event in ("train", "validation"):
        whole, parts = (
            [(line["step"], line["loss"], line.get("best_step")) for line in records(tmp_path / name, event)]
            for name in ("whole", "parts")
        )
        assert parts == whole
