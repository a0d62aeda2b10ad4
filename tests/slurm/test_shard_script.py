"""slurm/shard.sh: an array of tasks under a real Slurm builds the same shards as one process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builds import folder_bytes
from tests.slurm.cluster import Cluster
from tests.slurm.sources import Mirror

SCRIPT = Path("slurm/shard.sh").resolve()
SMALL = ("--cpus-per-task=1", "--mem-per-cpu=500M", "--output=%A_%a.log")


@pytest.fixture
def active() -> dict[str, str]:
    """Environment variables of a shell with an active virtual environment."""
    path = os.pathsep.join([f"{sys.prefix}/bin", "/usr/bin", "/bin"])
    return {"VIRTUAL_ENV": sys.prefix, "PATH": path}


@pytest.mark.slow
def test_an_array_on_two_nodes_gives_the_same_bytes(cluster: Cluster, folder: Path, mirror: Mirror) -> None:
    # --exclusive forces the tasks onto different nodes.
    job = cluster.submit(*SMALL, "--exclusive", "--array=0-1", str(SCRIPT), *mirror.words, "--out", "out", cwd=folder)
    assert cluster.wait(job) == {f"{job}_0": "COMPLETED", f"{job}_1": "COMPLETED"}
    details = cluster.run("scontrol", "show", "job", job)
    assert {word for word in details.split() if word.startswith("BatchHost=")} == {"BatchHost=n1", "BatchHost=n2"}
    assert folder_bytes(folder / "out") == mirror.expected
    logs = [(folder / f"{job}_{task}.log").read_text() for task in (0, 1)]
    assert [log.splitlines()[0].startswith(f"task {task} of 2 on ") for task, log in enumerate(logs)] == [True, True]


@pytest.mark.slow
def test_more_tasks_than_parts(cluster: Cluster, folder: Path, mirror: Mirror, active: dict[str, str]) -> None:
    (folder / ".venv").unlink()
    words = (*SMALL, "--array=0-6", str(SCRIPT), *mirror.words, "--out", "out")
    job = cluster.submit(*words, cwd=folder, environment=active)
    assert set(cluster.wait(job).values()) == {"COMPLETED"}
    assert folder_bytes(folder / "out") == mirror.expected


@pytest.mark.slow
def test_a_requeued_task_goes_on(cluster: Cluster, folder: Path, mirror: Mirror) -> None:
    job = cluster.submit(*SMALL, "--array=0-0", str(SCRIPT), *mirror.words, "--out", "out", cwd=folder)
    parts = folder / "out/parts"
    cluster.wait_until(lambda: any(parts.glob("*.json")), "the first part")
    cluster.run("scontrol", "requeue", f"{job}_0")
    cluster.wait_until(lambda: cluster.states(job)[f"{job}_0"] == "PENDING", "the requeued task")
    first = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert 0 < len(first) < 5
    assert not (folder / "out/manifest.json").exists()
    shards = {path.name: path.stat().st_ino for path in (folder / "out").glob("train-00000-*.tar")}
    assert set(cluster.wait(job).values()) == {"COMPLETED"}
    assert folder_bytes(folder / "out") == mirror.expected
    # Finished shards must not be rebuilt.
    assert {path.name: path.stat().st_ino for path in (folder / "out").glob("train-00000-*.tar")} == shards
    log = (folder / f"{job}_0.log").read_text()
    assert ", start 0\n" in log
    assert ", start 1\n" in log


@pytest.mark.parametrize(
    ("words", "options", "told"),
    [
        (("--array=1-2",), ("--out", "out"), "the array has 2 tasks from 1 to 2; it must be --array=0-N without gaps"),
        (("--array=0-2:2",), ("--out", "out"), "the array has 2 tasks from 0 to 2"),
        ((), ("--out", "out"), "SLURM_ARRAY_TASK_ID is not set, so this is not a task of an array; submit it with: sb"),
        (("--array=0-0",), (), "the options of `sgloc shard` are missing"),
        (("--array=0-0",), ("--out", "out"), "sgloc shard: "),
    ],
)
def test_mistakes_are_told(
    cluster: Cluster, folder: Path, words: tuple[str, ...], options: tuple[str, ...], told: str
) -> None:
    log = "--output=log"
    job = cluster.submit(*SMALL, *words, log, str(SCRIPT), *options, cwd=folder)
    assert set(cluster.wait(job).values()) == {"FAILED"}
    assert told in (folder / "log").read_text()
    assert not (folder / "out").exists()


SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_ARRAY_TASK_ID": "0",
    "SLURM_ARRAY_TASK_COUNT": "1",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "0",
    "SLURM_CPUS_PER_TASK": "1",
    "SLURM_SUBMIT_DIR": "/",
}


def run_outside_slurm(environment: dict[str, str]) -> str:
    """Run the script outside Slurm, where it must refuse, and return its error message."""
    outside = {"PATH": "/usr/bin:/bin", **environment}
    done = subprocess.run([SCRIPT, "--out", "out"], env=outside, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_outside_slurm_it_says_how_to_start_it() -> None:
    assert run_outside_slurm({}).startswith("shard.sh: this is not a Slurm job; submit it with: sbatch --array=0-15")


@pytest.mark.parametrize("name", sorted(SLURM.keys() - {"SLURM_JOB_ID"}))
def test_a_half_set_environment_is_refused(name: str) -> None:
    assert run_outside_slurm({key: value for key, value in SLURM.items() if key != name}).startswith(
        f"shard.sh: {name} is not set"
    )


def test_without_sgloc_it_says_what_is_missing() -> None:
    assert "sgloc was not found: / has no .venv, and no environment with sgloc is active" in run_outside_slurm(SLURM)


@pytest.mark.parametrize("script", sorted(SCRIPT.parent.glob("*.sh")), ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{sys.prefix}/bin")
    assert shellcheck is not None, "shellcheck is not installed; install it with pip install -e '.[dev]'"
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
