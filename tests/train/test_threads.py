"""No thread of a process group is left when a training process exits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.train.launch import tiny_options

CONFIGS = Path(__file__).parents[2] / "configs/deepspeed"

# A gloo thread that frees a tensor during interpreter shutdown aborts the process: "terminate called without an active
# exception".
TRAIN = """
import atexit, os, sys
from pathlib import Path
from sgloc.cli import main

def tell():
    names = [(Path("/proc/self/task") / task / "comm").read_text() for task in os.listdir("/proc/self/task")]
    print("threads", sum("gloo" in name for name in names))

atexit.register(tell)
main(["train", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="thread names are only readable on Linux (/proc)")
@pytest.mark.parametrize("engine", ["ddp", pytest.param("zero2", marks=pytest.mark.exhaustive), "zero3"])
def test_no_thread_outlives_the_process_group(engine: str, tiny_shards: str, tmp_path: Path) -> None:
    if engine != "ddp":
        pytest.importorskip("deepspeed", reason="DeepSpeed is not installed; install it with pip install -e '.[dev]'")
    options = ["--train.num_steps=2", *([] if engine == "ddp" else [f"--train.deepspeed={CONFIGS}/{engine}.json"])]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *tiny_options(tmp_path / "run", tiny_shards), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "threads 0"
