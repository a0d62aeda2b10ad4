"""Steps with a non-finite loss: all ranks skip and record them, and stop after several in a row."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sgloc.errors import TrainingError
from sgloc.train.checkpoint.load import read_checkpoint
from tests.checkpoints import find_checkpoint
from tests.train.launch import losses, run
from tests.train.runs import make_config, open_run, records, train


def bad_steps(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "bad-steps.ndjson").read_text().splitlines()]


def weights(shards: str, run_dir: Path) -> dict[str, Any]:
    """Return all tensors of the newest checkpoint of a finished run of 8 steps."""
    with open_run(make_config(shards, run_dir), "auto") as session:
        assert session.is_finished
        return {name: tensor.tolist() for name, tensor in session.engine.snapshot(lambda name: True).items()}


def test_a_skipped_step_is_told_and_changes_nothing_but_the_position(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SGLOC_FAILPOINT", "loss:hit:5")
    train(make_config(sample_shards, tmp_path / "run"), "auto")
    assert "skipping step 5: its loss or gradient is not finite" in capsys.readouterr().err
    (line,) = bad_steps(tmp_path / "run")
    assert (line["step"], line["rank"], line["loss"]) == (5, 0, "nan")
    assert line["gradient_norm"] > 0
    assert len(line["key_ids"]) == 16
    text = (tmp_path / "run/metrics.jsonl").read_text()
    assert not {"NaN", "Infinity"} & set(re.findall(r"[A-Za-z]+", text))
    lines = records(tmp_path / "run", "train")
    assert [line["skipped_steps"] for line in lines] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [line["loss"] is None for line in lines] == [False, False, False, False, True, False, False, False]
    state = read_checkpoint(find_checkpoint(str(tmp_path / "run"))).state
    assert (state["num_skipped_steps"], state["num_bad_steps"]) == (1, 0)
    # The optimizer counts only the steps it took.
    counts = [value for name, value in weights(sample_shards, tmp_path / "run").items() if name.endswith(".step")]
    assert set(counts) == {7.0}


def test_a_run_that_skips_is_resumed_to_the_bit(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLOC_FAILPOINT", "loss:hit:4")
    train(make_config(sample_shards, tmp_path / "whole"), "auto")
    for num_steps in (4, 8):
        train(make_config(sample_shards, tmp_path / "parts", num_steps=num_steps), "auto")
    assert losses(records(tmp_path / "parts", "train")) == losses(records(tmp_path / "whole", "train"))
    assert weights(sample_shards, tmp_path / "parts") == weights(sample_shards, tmp_path / "whole")


def test_skipped_steps_that_are_not_in_a_row_do_not_stop_the_run(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (2, 4, 6):
        monkeypatch.setenv("SGLOC_FAILPOINT", f"loss:hit:{step}")
        train(make_config(sample_shards, tmp_path, bad_steps=1, num_steps=step + 1), "auto")
    assert [line["step"] for line in bad_steps(tmp_path)] == [2, 4, 6]


def test_none_may_be_skipped_if_that_is_wanted(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLOC_FAILPOINT", "loss:hit:3")
    with pytest.raises(TrainingError, match="step 3 is not finite, after 0 consecutive non-finite steps were skipped"):
        train(make_config(sample_shards, tmp_path, bad_steps=0), "auto")


def test_where_they_cannot_be_written_down_they_are_told(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad-steps.ndjson").mkdir()
    monkeypatch.setenv("SGLOC_FAILPOINT", "loss:hit:3")
    train(make_config(sample_shards, tmp_path, num_steps=4), "auto")
    told = capsys.readouterr().err
    assert "bad-steps.ndjson (" in told
    (line,) = (json.loads(line) for line in told.splitlines() if line.startswith("{"))
    assert (line["step"], len(line["key_ids"])) == (3, 16)
    assert [line["skipped_steps"] for line in records(tmp_path, "train")] == [0, 0, 1, 1]


@pytest.mark.slow
def test_all_ranks_skip_what_is_not_finite_on_one(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLOC_FAILPOINT", "loss:hit:3:1")
    lines = run(tmp_path / "run", sample_shards, 2, "--train.num_steps", "6")
    assert [line["skipped_steps"] for line in lines] == [0, 0, 1, 1, 1, 1]
    zero, one = bad_steps(tmp_path / "run")
    assert (zero["step"], zero["rank"], one["step"], one["rank"]) == (3, 0, 3, 1)
    assert isinstance(zero["loss"], float)
    assert one["loss"] == "nan"
    assert len(set(zero["key_ids"] + one["key_ids"])) == 32
