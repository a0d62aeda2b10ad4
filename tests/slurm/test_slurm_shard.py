"""launch/slurm.py: distributed builds through submitit, under a real Slurm and as local processes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import launch.slurm
import launch.submit
from launch.slurm import main
from launch.submit import LaunchError
from tests.builds import folder_bytes
from tests.slurm.cluster import Cluster
from tests.slurm.sources import Mirror

SMALL = ("--cpus_per_process=1", "--memory_per_cpu=1")
WAITING = (*SMALL, "--wait", "--logs=logs")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the tests' working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # The tasks run in this folder and must be able to import the launcher.
    monkeypatch.setenv("PYTHONPATH", str(Path(launch.slurm.__file__).parents[1]))
    return tmp_path


@pytest.fixture
def inside(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, made visible to this process as on a login node."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    # All nodes share one disk, so the result of an ended task appears at once.
    monkeypatch.setattr(launch.submit, "_RESULT_SECONDS", 3.0)
    monkeypatch.setattr(launch.submit, "_POLL_SECONDS", 0.2)
    return cluster


def submitted(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Submit without waiting and return the job's number."""
    assert main([*SMALL, "--logs=logs", "--cluster=slurm", *words]) == 0
    found = re.match(r"submitted (\d+)", capsys.readouterr().out)
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_an_array_gives_the_same_bytes(
    inside: Cluster, folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--tasks=2", *WAITING, "shard", *mirror.words, "--out=out"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"submitted (\d+)_0, \1_1; logs in logs", said[0])
    assert sorted(said[1:]) == ["task 0/2: done", "task 1/2: done"]
    assert folder_bytes(folder / "out") == mirror.expected


@pytest.mark.slow
def test_a_task_that_is_out_of_time_goes_on(
    inside: Cluster, folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    job = submitted(capsys, "--tasks=1", "--minutes=30", "shard", *mirror.words, "--out=out")
    parts = folder / "out/parts"
    inside.wait_until(lambda: any(parts.glob("*.json")), "the first part")
    inside.run("scancel", "--signal=USR2", job)
    assert set(inside.wait(job).values()) == {"COMPLETED"}
    assert folder_bytes(folder / "out") == mirror.expected
    assert (folder / f"logs/{job}_0_log.out").read_text().count("Starting with JobEnvironment") == 2


@pytest.mark.slow
def test_failed_and_killed_tasks_are_told(
    inside: Cluster, folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel_second(jobs: list[object]) -> Iterator[tuple[int, bool]]:
        inside.run("scancel", str(jobs[1].job_id))  # type: ignore[attr-defined]
        return ended(jobs)

    ended = launch.submit.ended
    monkeypatch.setattr(launch.slurm, "ended", cancel_second)
    assert main(["--tasks=2", *WAITING, "shard", "--source=nowhere", "--out=out"]) == 2
    said = capsys.readouterr().out
    assert re.search(r"^task 0/2: sgloc shard: .*nowhere.* \(log: .*_log\.err\)$", said, re.MULTILINE)
    assert re.search(r"^task 1/2: it was killed \(log: ", said, re.MULTILINE)
    assert said.endswith("2 of 2 tasks failed; start the same command again to build the missing parts\n")


@pytest.mark.slow
def test_what_slurm_refuses_is_told(inside: Cluster, folder: Path) -> None:
    words = ["--tasks=2", *WAITING, "--partition=nosuch", "shard", "--source=x", "--out=out"]
    with pytest.raises(LaunchError, match=r"^the tasks cannot be submitted: [\s\S]*invalid partition"):
        main(words)


@pytest.mark.slow
def test_tasks_of_this_machine_give_the_same_bytes(
    folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--tasks=2", *WAITING, "--cluster=local", "shard"]
    assert main([*words, *mirror.words, "--out=out"]) == 0
    assert sorted(capsys.readouterr().out.splitlines()[1:]) == ["task 0/2: done", "task 1/2: done"]
    assert folder_bytes(folder / "out") == mirror.expected
    assert main([*words, "--source=nowhere", "--out=other"]) == 2
    assert capsys.readouterr().out.count("sgloc shard: ") == 2
