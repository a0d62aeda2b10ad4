"""Real processes, really killed: from then on the losses are those of a run that never was, to the bit (DESIGN
contracts 3 and 4)."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.launch import is_running, kill, losses, records, run, start, wait_until, workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

STEPS = ("--train.num_steps", "24")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, sample_shards: str) -> list[tuple[float, ...]]:
    """The losses of a run at two ranks that nothing disturbed."""
    return losses(run(tmp_path_factory.mktemp("unbroken") / "run", sample_shards, 2, *STEPS))


def tensors(run_dir: Path, step: int) -> dict[str, str]:
    """Checksums of a checkpoint's tensor files."""
    from sgloc.train.checkpoint import read_checkpoint

    files = read_checkpoint(f"{run_dir}/checkpoints/step-{step:08d}").files
    return {name: digest for name, (_, digest) in files.items()}


def test_killed_again_and_again_at_two_ranks(
    tmp_path: Path, sample_shards: str, unbroken: list[tuple[float, ...]]
) -> None:
    run_dir = tmp_path / "run"
    checkpoints = run_dir / "checkpoints"

    def one_rank_at_step(step: int) -> bool:
        return len(records(run_dir)) > 0 and records(run_dir)[-1]["step"] >= step

    moments: list[tuple[Callable[[], bool], str]] = [
        (lambda: one_rank_at_step(6), "one rank"),
        (lambda: any(checkpoints.glob("step-00000012.tmp")), "everything"),
        (lambda: one_rank_at_step(18), "everything"),
    ]
    for moment, victim in moments:
        process = start(run_dir, sample_shards, 2, *STEPS, log=tmp_path / "log")
        try:
            assert wait_until(moment, process), (tmp_path / "log").read_text()
            if victim == "one rank":
                os.kill(max(workers(process)), signal.SIGKILL)
                assert process.wait(60) != 0
        finally:
            kill(process)
    resumed = run(run_dir, sample_shards, 2, *STEPS)
    assert losses(resumed) == unbroken
    assert not list(checkpoints.glob("*.tmp"))


def test_killed_runs_end_with_the_same_weights(tmp_path: Path, sample_shards: str) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, sample_shards, 1, "--train.num_steps", "6")
    process = start(broken, sample_shards, 1, "--train.num_steps", "6", log=tmp_path / "log")
    try:
        assert wait_until(lambda: (broken / "checkpoints/step-00000004/manifest.json").exists(), process)
    finally:
        kill(process)
    run(broken, sample_shards, 1, "--train.num_steps", "6")
    assert losses(records(broken)) == losses(records(whole))
    assert tensors(broken, 6) == tensors(whole, 6)


def test_signal_saves_at_a_step_boundary_and_the_run_goes_on_from_there(
    tmp_path: Path, sample_shards: str, unbroken: list[tuple[float, ...]]
) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    # No checkpoint of its own accord: what is there afterwards, the signal saved.
    options = (*STEPS, "--train.checkpoint_every", "1000", "--train.validate_every", "1000")
    process = start(run_dir, sample_shards, 2, *options, log=log)
    try:
        assert wait_until(lambda: len(records(run_dir)) >= 5, process), log.read_text()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        kill(process)
    assert "stopped by a signal" in log.read_text()
    (saved,) = (run_dir / "checkpoints").iterdir()
    assert saved.name == f"step-{records(run_dir)[-1]['step']:08d}"
    assert losses(run(run_dir, sample_shards, 2, *STEPS)) == unbroken


def test_three_ranks_stopped_and_resumed(tmp_path: Path, sample_shards: str) -> None:
    """At three ranks the order in which gradients are summed shows in the last bits."""
    whole = losses(run(tmp_path / "whole", sample_shards, 3, "--train.num_steps", "9"))
    run(tmp_path / "halves", sample_shards, 3, "--train.num_steps", "4")
    assert losses(run(tmp_path / "halves", sample_shards, 3, "--train.num_steps", "9")) == whole


def test_same_losses_at_any_world_size_and_accumulation(
    tmp_path: Path, sample_shards: str, unbroken: list[tuple[float, ...]]
) -> None:
    for num_processes, accumulation in ((1, 1), (1, 4), (3, 2)):
        options = (*STEPS, "--train.accumulation", str(accumulation))
        lines = losses(run(tmp_path / f"{num_processes}x{accumulation}", sample_shards, num_processes, *options))
        for mine, theirs in zip(lines, unbroken, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4), (num_processes, accumulation)


def test_resume_at_another_world_size(tmp_path: Path, sample_shards: str, unbroken: list[tuple[float, ...]]) -> None:
    run_dir = tmp_path / "run"
    run(run_dir, sample_shards, 2, "--train.num_steps", "12")
    lines = losses(run(run_dir, sample_shards, 1, *STEPS))
    assert lines[:12] == unbroken[:12]
    for mine, theirs in zip(lines, unbroken, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_torchrun_restarts_a_run_whose_rank_was_killed(
    tmp_path: Path, sample_shards: str, unbroken: list[tuple[float, ...]]
) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    process = start(run_dir, sample_shards, 2, *STEPS, log=log, max_restarts=1)
    try:
        assert wait_until(lambda: len(records(run_dir)) >= 6, process), log.read_text()
        os.kill(max(workers(process)), signal.SIGKILL)
        assert process.wait(120) == 0, log.read_text()
    finally:
        kill(process)
    assert losses(records(run_dir)) == unbroken


def test_a_rank_that_hangs_ends_the_attempt_and_torchrun_starts_the_next(
    tmp_path: Path, sample_shards: str, unbroken: list[tuple[float, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    monkeypatch.setenv("SGLOC_FAILPOINT", "step:hang:10:1")
    process = start(run_dir, sample_shards, 2, *STEPS, "--train.timeout", "5", log=log, max_restarts=1)
    try:
        # torchrun gives a process that does not answer 30 seconds before it kills it.
        assert process.wait(150) == 0, log.read_text()
    finally:
        kill(process)
    assert "another process of this run has not answered for 5 s (train.timeout)" in log.read_text()
    assert losses(records(run_dir)) == unbroken


def test_a_killed_torchrun_takes_its_ranks_along(tmp_path: Path, sample_shards: str) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    process = start(run_dir, sample_shards, 2, "--train.num_steps", "100000", log=log)
    try:
        assert wait_until(lambda: len(records(run_dir)) >= 2, process), log.read_text()
        ranks = list(workers(process))
        assert len(ranks) == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        end = time.monotonic() + 10
        while any(is_running(rank) for rank in ranks):
            assert time.monotonic() < end, "a rank goes on without its torchrun"
            time.sleep(0.05)
    finally:
        kill(process)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path, sample_shards: str) -> None:
    run_dir, first_log, second_log = tmp_path / "run", tmp_path / "first", tmp_path / "second"
    first = start(run_dir, sample_shards, 1, "--train.num_steps", "100000", log=first_log)
    try:
        assert wait_until(lambda: len(records(run_dir)) >= 2, first), first_log.read_text()
        second = start(run_dir, sample_shards, 1, "--train.num_steps", "100000", log=second_log)
        try:
            assert second.wait(60) == 1
        finally:
            kill(second)
        assert "another run is writing to" in second_log.read_text()
        assert first.poll() is None
    finally:
        kill(first)
