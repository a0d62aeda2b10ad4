"""Checkpoint retention: which checkpoints of a run are kept, and which one counts as the best."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgloc.errors import CheckpointError
from sgloc.train.checkpoint.load import checkpoint_steps
from tests.checkpoints import SHARD, find_checkpoint, save_steps, single_process, step_path, truncate


@pytest.fixture(scope="module", autouse=True)
def _group() -> Iterator[None]:
    with single_process():
        yield


def test_retention_keeps_the_newest_the_best_and_every_nth(tmp_path: Path) -> None:
    save_steps(tmp_path, [1, 2, 3, 4, 5], keep=2, best_step=2)
    assert checkpoint_steps(str(tmp_path)) == [5, 4, 2]
    save_steps(tmp_path, [6], keep=2, best_step=6)
    assert checkpoint_steps(str(tmp_path)) == [6, 5]
    save_steps(tmp_path, [9, 10, 11, 12, 15], keep=1, every=5, best_step=11)
    assert checkpoint_steps(str(tmp_path)) == [15, 11, 10, 5]
    save_steps(tmp_path, [16], keep=1)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000016"]


def test_retention_counts_only_complete_checkpoints(tmp_path: Path) -> None:
    save_steps(tmp_path, [1, 2, 3])
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(step_path(tmp_path, 3), checkpoints / "step-00000008.tmp")
    step_path(tmp_path, 9).mkdir()
    (checkpoints / "notes").mkdir()
    save_steps(tmp_path, [4], keep=2)
    # Leftovers of a killed save are removed as well; files that are not the program's stay.
    assert sorted(path.name for path in checkpoints.iterdir()) == ["notes", "step-00000003", "step-00000004"]


def test_the_best_is_found_else_the_newest(tmp_path: Path, logged: list[str]) -> None:
    save_steps(tmp_path, [1, 2, 3], best_step=2)
    best, newest = step_path(tmp_path, 2), step_path(tmp_path, 3)
    assert find_checkpoint(str(tmp_path)) == str(best)
    assert find_checkpoint(f"{tmp_path}/") == str(best)
    assert find_checkpoint(str(newest)) == str(newest)
    assert logged == []
    truncate(best / SHARD)
    assert find_checkpoint(str(tmp_path)) == str(newest)
    assert len(logged) == 1
    assert str(best) in logged[0]
    with pytest.raises(CheckpointError, match="is damaged"):
        find_checkpoint(str(best))
    shutil.rmtree(best)
    assert find_checkpoint(str(tmp_path)) == str(newest)
    with pytest.raises(CheckpointError, match="does not exist"):
        find_checkpoint(str(tmp_path / "none"))
