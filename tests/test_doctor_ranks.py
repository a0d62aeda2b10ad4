"""`sgloc doctor` on several real processes, one of which differs from the others or hangs."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE
from tests.ports import free_port

pytestmark = pytest.mark.slow


def start(*words: str, **variables: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "sgloc", "doctor", "--json", "--device=cpu", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_rank(rank: int, port: int, *words: str, **variables: str) -> "subprocess.Popen[str]":
    """Start one of two ranks with a launcher's variables."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    return start(*words, **place, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), **variables)


def findings(process: "subprocess.Popen[str]", code: int) -> list[dict[str, Any]]:
    """Return the findings of a process, which must exit with this code and print nothing else."""
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, errors) == (code, ""), output
    return [json.loads(line) for line in output.splitlines()]


def fifo_shards(folder: Path) -> Path:
    """Return shards whose manifest is a FIFO, so that reading it blocks forever."""
    folder.mkdir()
    os.mkfifo(folder / "manifest.json")
    return folder


def wait_until_read(fifo: Path) -> None:
    """Wait until a process opens the FIFO for reading."""
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
            return
        assert time.monotonic() < end, "no process reads the FIFO"
        time.sleep(0.05)


def test_two_that_are_alike(tiny_shards: str, tmp_path: Path) -> None:
    port, words = free_port(), (f"--data={tiny_shards}", f"--run={tmp_path}/run")
    second = start_rank(1, port, *words)
    found = {one["check"]: one for one in findings(start_rank(0, port, *words), 0)}
    assert findings(second, 0) == []
    assert found["nodes"]["found"].startswith("2 process(es) by torchrun on 1 node(s), 1 machine(s): 2 on each")
    assert re.match("gloo, 2 ranks: 32 bytes in .* 96 MB in ", found["all-reduce"]["found"])
    numbers = found["all-reduce"]["numbers"]
    assert 0 < numbers["latency_seconds"] < numbers["seconds"]
    assert numbers["bus_bandwidth"] == numbers["algorithm_bandwidth"] > 10**6
    assert found["locks"]["found"] == "seen by all ranks"
    assert found["shards"]["found"].endswith("by 2 rank(s): 3")
    assert not list(tmp_path.iterdir())


def test_one_that_is_not_like_the_other_and_dies(tiny_shards: str, tmp_path: Path) -> None:
    other = tmp_path / "other/triton-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: triton\nVersion: 0.0.1\n")
    hanging = fifo_shards(tmp_path / "hanging")
    port = free_port()
    first = start_rank(0, port, f"--data={tiny_shards}", f"--run={tmp_path}/run")
    second = start_rank(1, port, f"--data={hanging}", f"--run={tmp_path}/elsewhere", PYTHONPATH=str(other.parent))
    try:
        wait_until_read(hanging / "manifest.json")
    finally:
        second.send_signal(signal.SIGKILL)
        second.communicate()
    problems = {one["check"]: one["found"] for one in findings(first, 1) if one["status"] == "problem"}
    host = re.escape(socket.gethostname())
    assert re.match(rf"rank 1 \({host}\) has triton 0.0.1, others have ", problems["versions"])
    assert re.match(rf"rank 1 \({host}\): after 5 s, it still does not see the file that", problems["run folder"])
    assert problems["ranks"] == "one of 2 ranks is gone; its last output says why"
    assert set(problems) == {"versions", "run folder", "ranks"}


def test_a_check_that_hangs_is_told_with_what_was_found(tmp_path: Path) -> None:
    found = findings(start(f"--data={fifo_shards(tmp_path / 'hanging')}", "--timeout=8"), 1)
    assert len(found) > 8
    assert re.match(r"rank 0 \(.*\) has not finished this check after 8 s", found[-1]["found"])
    assert (found[-1]["check"], found[-1]["status"]) == ("shards", "problem")
