"""Ranks killed in every phase of a checkpoint's writing: it is committed or absent, and the losses are those of a run
that nothing disturbed, to the bit (DESIGN contracts 3 and 4)."""

from pathlib import Path

import pytest

from sgloc.train.checkpoint import checkpoint_steps, read_checkpoint, step_folder
from tests.checkpoints import flip_bit
from tests.train.launch import TIMEOUT, kill, losses, records, run, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# Where a rank is killed, while the checkpoint of which step is written; and what is committed then.
KILLS = [
    ("begin:kill:4:1", []),
    ("half:kill:4:1", []),
    ("written:kill:4:0", []),
    ("gathered:kill:8:0", [4]),
    ("manifest:kill:8:0", [4]),
    ("renamed:kill:8:0", [8, 4]),
    ("retained:kill:16:0", [16, 12]),
]
STEPS = ("--train.num_steps", "20", "--train.validate_every", "20")


def checkpoints(run_dir: Path) -> list[int]:
    """Steps of the run's checkpoints, all of which are whole."""
    steps = checkpoint_steps(str(run_dir))
    for step in steps:
        read_checkpoint(step_folder(str(run_dir), step))
    return steps


def test_killed_in_every_phase_of_a_save(tmp_path: Path, sample_shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unbroken = losses(run(tmp_path / "unbroken", sample_shards, 2, *STEPS))
    run_dir, log = tmp_path / "run", tmp_path / "log"
    for number, (failpoint, committed) in enumerate(KILLS):
        monkeypatch.setenv("SGLOC_FAILPOINT", f"checkpoint.{failpoint}")
        last = number == len(KILLS) - 1
        # The last time torchrun starts the ranks again, and they go on to the end.
        process = start(run_dir, sample_shards, 2, *STEPS, log=log, max_restarts=int(last))
        try:
            code = process.wait(TIMEOUT)
        finally:
            kill(process)
        said = log.read_text()
        log.unlink()
        if last:
            assert code == 0
            assert f"resuming from {step_folder(str(run_dir), 16)}" in said
        else:
            assert code != 0
            assert "SIGKILL" in said
            assert checkpoints(run_dir) == committed, failpoint
        if failpoint.startswith("renamed"):
            # Besides, the newest is damaged: all ranks skip it.
            (damaged,) = Path(step_folder(str(run_dir), 8)).glob("shard-00001-*")
            flip_bit(damaged, 8 * damaged.stat().st_size - 1)
    assert losses(records(run_dir)) == unbroken
    assert checkpoints(run_dir) == [20, 16]
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["step-00000016", "step-00000020"]
