"""A store that never answers: the run ends with exit code 1 within `train.timeout` plus two seconds."""

import signal
import time
from pathlib import Path

import pytest

from sgloc.train.checkpoint.load import checkpoint_steps
from tests.hanging import AFTER, AT
from tests.patience import PATIENCE
from tests.train.launch import kill, records, start, wait_until

pytestmark = pytest.mark.slow

# Values of train.timeout to try, in seconds, by number of ranks. Two ranks do not start at the same moment; on a busy
# machine the gap can exceed the first value.
TIMEOUTS = {1: (2.0,), 2: (8.0, 60.0)}
OPTIONS = ("--train.num_steps", "100000", "--train.patience", "0", "--train.validate_every", "100000")
# Seconds. An idle machine needs less than two; one that is busy with other tests is slow to step and to exit.
ALLOWANCE = 60.0
SHARD = "step-00000008.tmp/shard"


@pytest.mark.parametrize(
    ("num_processes", "at", "after", "said"),
    [
        pytest.param(1, SHARD, "/", "the checkpoint of step 8 was not written to", id="in a save"),
        pytest.param(2, SHARD, "/", "the checkpoint of step 8 was not written to", id="in a save of two ranks"),
        pytest.param(1, "/", "step-00000004/manifest.json", "was not written to", id="after the first checkpoint"),
        pytest.param(2, ".lock", "/", "has not answered for {:g} s", id="at the start of two ranks"),
    ],
)
def test_the_run_ends_in_time(
    tmp_path: Path,
    sample_shards: str,
    hanging: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_processes: int,
    at: str,
    after: str,
    said: str,
) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    monkeypatch.setenv(AT, at)
    monkeypatch.setenv(AFTER, str(run_dir / "checkpoints" / after))
    for timeout in TIMEOUTS[num_processes]:
        log.unlink(missing_ok=True)
        options = ("--train.run", f"hang://{run_dir}", "--train.timeout", str(timeout), *OPTIONS)
        process = start(run_dir, sample_shards, num_processes, *options, log=log)
        try:
            if wait_until(hanging.exists, process):
                began = time.monotonic()
                code = process.wait(PATIENCE)
                took = time.monotonic() - began
                break
        finally:
            kill(process)
    else:
        pytest.fail(log.read_text())
    text = log.read_text()
    assert code == 1, text
    # Waiting for the store ends at 0.9 of the timeout, before the other ranks stop waiting for that rank.
    assert text.count("sgloc train: ") == text.count(said.format(0.9 * timeout)) == 1, text
    assert "sgloc/" not in text, "the log shows a traceback through sgloc"
    assert took < timeout + ALLOWANCE
    if said.startswith("the checkpoint"):
        assert "the newest checkpoint is of step 4; check the store, then start again" in text
        assert checkpoint_steps(str(run_dir)) == [4]


def test_a_stop_is_heard_while_a_save_hangs(
    tmp_path: Path, sample_shards: str, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    monkeypatch.setenv(AT, SHARD)
    options = ("--train.run", f"hang://{run_dir}", "--train.timeout", "600", *OPTIONS)
    process = start(run_dir, sample_shards, 2, *options, log=log)
    try:
        # The save of step 12 waits for the save of step 8.
        assert wait_until(lambda: hanging.exists() and records(run_dir)[-1]["step"] >= 8, process), log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 1, log.read_text()
    finally:
        kill(process)
    text = log.read_text()
    assert "a stop signal arrived while the checkpoint of step 8 was being written to" in text
    assert "which has accepted no data for 15 s; the newest checkpoint is of step 4; check the store" in text


def test_shards_that_never_come_end_the_run(
    tmp_path: Path, sample_shards: str, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv(AT, f"{sample_shards}/train-")
    options = ("--data.path", f"hang://{sample_shards}", "--train.timeout", "2", *OPTIONS)
    process = start(tmp_path / "run", sample_shards, 1, *options, log=log)
    try:
        assert process.wait(PATIENCE) == 1, log.read_text()
    finally:
        kill(process)
    assert f"sgloc train: reading the shards in hang://{sample_shards} has returned nothing for 2 s" in log.read_text()
