"""Tests of the Slurm cluster that the other tests use."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.slurm.cluster import Cluster

START = """
import time
from tests.slurm.cluster import Cluster
with Cluster() as cluster:
    cluster.submit("--array=0-1", "--wrap", "sleep 300", cwd="/tmp")
    print(cluster.environment["SLURM_CONF"], flush=True)
    time.sleep(300)
"""


def processes_of(configuration: str) -> list[str]:
    """Return the command lines of the processes, except zombies, that have a cluster's SLURM_CONF."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"SLURM_CONF={configuration}".encode() in environment:
            found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_nothing_is_left_of_killed_tests() -> None:
    command = [sys.executable, "-c", START]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as tests:
        assert tests.stdout is not None
        configuration = tests.stdout.readline().strip()
        assert Path(configuration).exists()
        assert len(processes_of(configuration)) > 4
        os.killpg(tests.pid, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while Path(configuration).exists() or processes_of(configuration):
        assert time.monotonic() < end, processes_of(configuration)
        time.sleep(0.2)


@pytest.mark.slow
def test_jobs_get_gpus_and_nodes_of_their_own(cluster: Cluster, tmp_path: Path) -> None:
    words = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=3", "--output=log")
    script = "srun bash -c 'echo $SLURMD_NODENAME $SLURM_PROCID $CUDA_VISIBLE_DEVICES'"
    job = cluster.submit(*words, "--wrap", script, cwd=tmp_path)
    assert set(cluster.wait(job).values()) == {"COMPLETED"}
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["n1 0 0,1,2", "n2 1 0,1,2"]
