"""Kill real training processes: the resumed run's losses are bit-identical to those of an undisturbed run (DESIGN
contracts 3 and 4)."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from sgloc.train.checkpoint.format import step_folder
from sgloc.train.checkpoint.load import checkpoint_steps, read_checkpoint
from tests.checkpoints import flip_bit
from tests.patience import PATIENCE
from tests.train.launch import (
    has_pending,
    is_running,
    kill,
    losses,
    records,
    run,
    start,
    wait_for_ranks_to_stop,
    wait_until,
    workers,
)

pytestmark = pytest.mark.slow

STEPS = ("--train.num_steps", "24")
# No scheduled checkpoint or validation.
UNDISTURBED = ("--train.checkpoint_every", "1000", "--train.validate_every", "1000")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, sample_shards: str) -> Path:
    """An undisturbed run on two ranks; tests may copy it but must not change it."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    run(run_dir, sample_shards, 2, *STEPS)
    return run_dir


@pytest.fixture(scope="module")
def unbroken(whole: Path) -> list[tuple[float, ...]]:
    """The losses of the undisturbed run."""
    return losses(records(whole))


@pytest.fixture(scope="module")
def three_ranks(tmp_path_factory: pytest.TempPathFactory, sample_shards: str) -> list[tuple[float, ...]]:
    """The losses of twelve steps on three ranks with two micro-batches each."""
    run_dir = tmp_path_factory.mktemp("three") / "run"
    return losses(run(run_dir, sample_shards, 3, "--train.num_steps", "12", "--train.accumulation", "2"))


def tensors(run_dir: Path, step: int) -> dict[str, str]:
    """Return the checksums of a checkpoint's tensor files, by file name."""
    files = read_checkpoint(step_folder(str(run_dir), step)).files
    return {name: digest for name, (_, digest) in files.items()}


def committed(run_dir: Path) -> list[int]:
    """Return the steps of the run's checkpoints, having verified that each is intact."""
    steps = checkpoint_steps(str(run_dir))
    for step in steps:
        read_checkpoint(step_folder(str(run_dir), step))
    return steps


def test_all_killed_at_a_step_and_while_they_save(
    tmp_path: Path, sample_shards: str, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    for failpoint, number in (("step:hang:7", 2), ("checkpoint.half:hang:12:0", 1)):
        monkeypatch.setenv("SGLOC_FAILPOINT", failpoint)
        process = start(run_dir, sample_shards, 2, *STEPS, log=tmp_path / "log")
        try:
            wait_for_ranks_to_stop(process, number)
        finally:
            kill(process)
    assert list((run_dir / "checkpoints").glob("step-00000012.tmp"))
    monkeypatch.delenv("SGLOC_FAILPOINT")
    assert losses(run(run_dir, sample_shards, 2, *STEPS)) == losses(records(whole))
    assert tensors(run_dir, 24) == tensors(whole, 24)
    assert not list((run_dir / "checkpoints").glob("*.tmp"))


def test_a_signal_saves_at_a_step_boundary_and_the_run_goes_on_from_there(
    tmp_path: Path, sample_shards: str, unbroken: list[tuple[float, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    monkeypatch.setenv("SGLOC_FAILPOINT", "step:hang:6")
    # No checkpoint is scheduled, so one that exists afterwards was saved because of the signal.
    process = start(run_dir, sample_shards, 2, *STEPS, *UNDISTURBED, log=log)
    try:
        ranks = wait_for_ranks_to_stop(process, 2)
        process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: all(has_pending(rank, signal.SIGTERM) for rank in ranks), process)
        for rank in ranks:
            os.kill(rank, signal.SIGCONT)
        process.wait(PATIENCE)
    finally:
        kill(process)
    assert "stopped by a signal" in log.read_text()
    assert committed(run_dir) == [records(run_dir)[-1]["step"]] == [6]
    monkeypatch.delenv("SGLOC_FAILPOINT")
    assert losses(run(run_dir, sample_shards, 2, *STEPS)) == unbroken


def test_three_ranks_stopped_and_resumed(
    tmp_path: Path, sample_shards: str, three_ranks: list[tuple[float, ...]]
) -> None:
    """With three ranks, the order in which gradients are summed affects the last bits."""
    for num_steps in ("5", "12"):
        options = ("--train.num_steps", num_steps, "--train.accumulation", "2")
        lines = losses(run(tmp_path / "halves", sample_shards, 3, *options))
    assert lines == three_ranks


def test_same_losses_at_any_world_size_and_accumulation(
    tmp_path: Path, sample_shards: str, unbroken: list[tuple[float, ...]], three_ranks: list[tuple[float, ...]]
) -> None:
    options = ("--train.num_steps", "12", "--train.accumulation", "4")
    one_rank = losses(run(tmp_path / "one", sample_shards, 1, *options))
    for lines in (one_rank, three_ranks):
        for mine, theirs in zip(lines, unbroken[:12], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4)


def test_resume_at_another_world_size(
    tmp_path: Path, sample_shards: str, whole: Path, unbroken: list[tuple[float, ...]]
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(step_folder(str(tmp_path / "run"), 24))
    lines = losses(run(tmp_path / "run", sample_shards, 1, *STEPS))
    assert lines[:20] == unbroken[:20]
    # The remaining steps are recomputed, by one rank.
    assert lines[20:] != unbroken[20:]
    for mine, theirs in zip(lines, unbroken, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_a_rank_that_hangs_ends_the_attempt_and_torchrun_starts_the_next(
    tmp_path: Path, sample_shards: str, unbroken: list[tuple[float, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    # 20 s, because on a busy machine two ranks may start that far apart.
    said = "another process of this run has not answered for 20 s (train.timeout)"
    monkeypatch.setenv("SGLOC_FAILPOINT", "step:hang:10:1")
    process = start(run_dir, sample_shards, 2, *STEPS, "--train.timeout", "20", log=log, max_restarts=1)
    try:
        (hanging,) = wait_for_ranks_to_stop(process, 1)
        assert wait_until(lambda: said in log.read_text(), process)
        # torchrun itself would kill it only after 30 seconds.
        os.kill(hanging, signal.SIGKILL)
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        kill(process)
    assert losses(records(run_dir)) == unbroken


def test_another_run_in_the_folder_is_refused_and_a_killed_torchrun_takes_its_ranks_along(
    tmp_path: Path, sample_shards: str
) -> None:
    run_dir, first_log, second_log = tmp_path / "run", tmp_path / "first", tmp_path / "second"
    first = start(run_dir, sample_shards, 2, "--train.num_steps", "1000000", *UNDISTURBED, log=first_log)
    try:
        assert wait_until(lambda: len(records(run_dir)) >= 2, first), first_log.read_text()
        second = start(run_dir, sample_shards, 1, *STEPS, log=second_log)
        try:
            assert second.wait(PATIENCE) == 1
        finally:
            kill(second)
        assert "another run is writing to" in second_log.read_text()
        assert first.poll() is None
        ranks = list(workers(first))
        assert len(ranks) == 2
        first.send_signal(signal.SIGKILL)
        first.wait()
        end = time.monotonic() + PATIENCE
        while any(is_running(rank) for rank in ranks):
            assert time.monotonic() < end, "a rank is still running after its torchrun was killed"
            time.sleep(0.05)
    finally:
        kill(first)


# The failpoint (phase of the save, action, step and rank), and the checkpoints that are committed afterwards.
KILLS = [
    pytest.param("begin:kill:4:1", [], id="begin", marks=pytest.mark.exhaustive),
    pytest.param("half:kill:4:1", [], id="half"),
    pytest.param("written:kill:4:0", [], id="written", marks=pytest.mark.exhaustive),
    pytest.param("gathered:kill:8:0", [4], id="gathered", marks=pytest.mark.exhaustive),
    pytest.param("manifest:kill:8:0", [4], id="manifest"),
    pytest.param("renamed:kill:8:0", [8, 4], id="renamed", marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize(("failpoint", "kept"), KILLS)
def test_killed_in_a_phase_of_a_save(
    tmp_path: Path, sample_shards: str, monkeypatch: pytest.MonkeyPatch, failpoint: str, kept: list[int]
) -> None:
    monkeypatch.setenv("SGLOC_FAILPOINT", f"checkpoint.{failpoint}")
    process = start(tmp_path / "run", sample_shards, 2, *STEPS, log=tmp_path / "log")
    try:
        assert process.wait(PATIENCE) != 0
    finally:
        kill(process)
    assert "SIGKILL" in (tmp_path / "log").read_text()
    assert committed(tmp_path / "run") == kept


def test_torchrun_starts_a_run_again_that_was_killed_as_it_removed_old_checkpoints(
    tmp_path: Path,
    sample_shards: str,
    whole: Path,
    unbroken: list[tuple[float, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    run(run_dir, sample_shards, 2, "--train.num_steps", "8")
    # The newest checkpoint is damaged as well: all ranks skip it.
    (damaged,) = Path(step_folder(str(run_dir), 8)).glob("shard-00001-*")
    flip_bit(damaged, 8 * damaged.stat().st_size - 1)
    monkeypatch.setenv("SGLOC_FAILPOINT", "checkpoint.retained:kill:12:0")
    process = start(run_dir, sample_shards, 2, *STEPS, log=log, max_restarts=1)
    try:
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        kill(process)
    assert "(exitcode: -9) local_rank: 0" in log.read_text()
    for step in (4, 12):
        assert f"resuming from {step_folder(str(run_dir), step)}" in log.read_text()
    assert losses(records(run_dir)) == unbroken
    assert tensors(run_dir, 24) == tensors(whole, 24)
