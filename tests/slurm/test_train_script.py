"""slurm/train.sh and slurm/evaluate.sh under a real Slurm: interruptions do not change the result of a run."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sgloc.cli import main
from tests.checkpoints import make_model, save_model
from tests.slurm.cluster import Cluster
from tests.train.launch import losses, records, tiny_options

SCRIPTS = Path("slurm").resolve()
TRAIN, EVALUATE = str(SCRIPTS / "train.sh"), str(SCRIPTS / "evaluate.sh")
# The run time is dominated by starting processes, so one thread each is enough.
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
STEPS = ("--train.num_steps", "40")


def ranks(cluster: Cluster) -> list[int]:
    """Return the process ids of the ranks that train on a cluster."""
    configuration = f"SLURM_CONF={cluster.environment['SLURM_CONF']}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if configuration in variables and any(variable.startswith(b"LOCAL_RANK=") for variable in variables):
            found.append(int(process.name))
    return found


@pytest.mark.slow
def test_preempted_killed_and_robbed_of_a_node(
    cluster: Cluster, folder: Path, picture_shards: str, request: pytest.FixtureRequest
) -> None:
    run_dir, log = folder / "run", folder / "log"

    def train_until(step: int) -> None:
        cluster.wait_until(lambda: len(records(run_dir)) >= step, f"step {step}")

    def train_again(count: int) -> None:
        # The number of steps does not show a restart: earlier starts may have reached it.
        cluster.wait_until(lambda: log.read_text().count("4 process(es) by torchrun") >= count, f"start {count}")

    # --gpus-per-task must not leave a GPU unused.
    script = ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-task=1", "--output=log", TRAIN)
    options = (*tiny_options(run_dir, picture_shards), *STEPS)
    job = cluster.submit(*script, *options, cwd=folder, environment=ENVIRONMENT)
    train_until(5)
    preempting = ("--partition=preempt", "--nodes=2", "--exclusive", "--output=other", "--wrap", "sleep 1")
    other = cluster.submit(*preempting, cwd=folder)
    assert set(cluster.wait(other).values()) == {"COMPLETED"}
    train_until(10)
    train_again(2)
    # SIGTERM to the ranks only is what Slurm sends before it takes nodes away, unless it is configured otherwise.
    cluster.run("scancel", "--signal=TERM", job)
    cluster.wait_until(lambda: f", start 2, in {run_dir}" in log.read_text(), "the second start")
    train_until(15)
    train_again(3)
    os.kill(max(ranks(cluster)), signal.SIGKILL)
    train_until(25)
    train_again(4)
    with cluster.without_node("n2"):
        # Slurm needs some time to notice; compute the reference losses meanwhile.
        unbroken = request.getfixturevalue("unbroken")
        cluster.wait_until(lambda: cluster.states(job)[job] == "PENDING", f"job {job} in the queue")
    assert set(cluster.wait(job).values()) == {"COMPLETED"}, log.read_text()
    assert losses(records(run_dir)) == unbroken
    told = log.read_text()
    assert [told.count(f", start {number}, in {run_dir}") for number in range(5)] == [1, 1, 1, 1, 0]
    assert told.count("4 process(es) by torchrun on 2 node(s)") == 5
    assert told.count("train.sh: training was asked to stop; the job is requeued\n") == 1
    assert told.count("train.sh: training was stopped; the job is requeued\n") == 1
    assert f"restarting from {run_dir}/checkpoints/step-" in told
    evaluate = ("--cpus-per-task=1", "--output=evaluated.log", EVALUATE)
    options = ("--checkpoint", str(run_dir), "--data", picture_shards, "--out", "evaluated", "--count", "2")
    job = cluster.submit(*evaluate, *options, cwd=folder)
    assert set(cluster.wait(job).values()) == {"COMPLETED"}, (folder / "evaluated.log").read_text()
    assert "| synthesis | 2 |" in (folder / "evaluated/results.md").read_text()


@pytest.mark.slow
def test_training_that_gets_nowhere_is_given_up(cluster: Cluster, folder: Path, picture_shards: str) -> None:
    words = ("--output=log", TRAIN, *tiny_options(folder / "run", picture_shards), *STEPS)
    # Each attempt is killed before its first checkpoint.
    environment = {**ENVIRONMENT, "SGLOC_FAILPOINT": "step:kill:2"}
    job = cluster.submit(*words, cwd=folder, environment=environment)
    assert set(cluster.wait(job).values()) == {"FAILED"}
    told = (folder / "log").read_text()
    assert told.count("launch.local: rank 0 was killed by SIGKILL; see the error above\n") == 3
    assert told.count("restarting from the beginning\n") == 2
    assert told.endswith("train.sh: training failed 3 times without a new checkpoint\n")


@pytest.mark.slow
def test_a_fault_of_the_program_is_not_started_again(cluster: Cluster, folder: Path, sample_shards: str) -> None:
    words = ("--nodes=2", "--output=log", TRAIN, *tiny_options(folder / "run", sample_shards), *STEPS)
    job = cluster.submit(*words, cwd=folder, environment={**ENVIRONMENT, "SGLOC_FAILPOINT": "step:fault:2:1"})
    assert set(cluster.wait(job).values()) == {"FAILED"}
    told = (folder / "log").read_text()
    assert told.count("starting from scratch in ") == told.count("this is a bug in sgloc") == 1
    assert told.endswith("train.sh: see the error above; a restart would fail in the same way\n")


@pytest.mark.slow
def test_ranks_of_srun_itself_save_when_told_to_end(cluster: Cluster, folder: Path, picture_shards: str) -> None:
    run_dir, log = folder / "run", folder / "log"
    command = shlex.join(["srun", sys.executable, "-m", "sgloc", "train", *tiny_options(run_dir, picture_shards)])
    words = ("--nodes=2", "--output=log", "--wrap", command)
    job = cluster.submit(*words, cwd=folder, environment=ENVIRONMENT)
    cluster.wait_until(lambda: len(records(run_dir)) >= 3, "step 3")
    cluster.run("scancel", "--signal=TERM", f"{job}.0")
    assert set(cluster.wait(job).values()) == {"COMPLETED"}, log.read_text()
    step = records(run_dir)[-1]["step"]
    assert f"stopped by a signal at step {step};" in log.read_text()
    assert (run_dir / f"checkpoints/step-{step:08d}/manifest.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((TRAIN,), "train.sh: the options of `sgloc train` are missing; submit it with: sbatch"),
        ((TRAIN, "--train.sed", "1"), "launch.command: unknown option --train.sed; did you mean --train.seed?"),
        ((TRAIN, "--data.path", "nosuch"), "launch.command: nosuch/manifest.json does not exist; give a folder"),
        ((EVALUATE,), "evaluate.sh: the options of `sgloc evaluate` are missing; submit it with: sbatch"),
        ((EVALUATE, "--split", "tst"), "sgloc evaluate: "),
    ],
)
def test_mistakes_are_told(cluster: Cluster, folder: Path, words: Sequence[str], told: str) -> None:
    job = cluster.submit("--output=log", *words, cwd=folder)
    assert set(cluster.wait(job).values()) == {"FAILED"}
    assert told in (folder / "log").read_text()


def test_tasks_share_an_evaluation(cluster: Cluster, folder: Path, tiny_shards: str) -> None:
    checkpoint = str(save_model(folder / "model", tiny_shards, make_model()))
    words = ["--checkpoint", checkpoint, "--data", tiny_shards, "--resamples", "20", "--batch_size", "4"]
    main(["evaluate", *words, "--out", str(folder / "here")])
    options = ["--output=log", "--ntasks-per-node=2", "--cpus-per-task=1"]
    job = cluster.submit(*options, EVALUATE, *words, "--out", "there", cwd=folder)
    assert set(cluster.wait(job).values()) == {"COMPLETED"}, (folder / "log").read_text()
    assert (folder / "there/results.json").read_bytes() == (folder / "here/results.json").read_bytes()
    assert "| synthesis | 12 |" in (folder / "log").read_text()


def test_a_short_time_limit_is_told(cluster: Cluster, folder: Path, tiny_shards: str) -> None:
    job = cluster.submit("--output=log", "--time=5", TRAIN, "--data.path", tiny_shards, cwd=folder)
    assert set(cluster.wait(job).values()) == {"FAILED"}
    told = r"train.sh: the time limit leaves (\d+) seconds; pass sbatch --time=10 or more minutes, "
    found = re.match(told, (folder / "log").read_text())
    assert found is not None
    assert 240 <= int(found[1]) <= 300


SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_SUBMIT_DIR": "/",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_JOB_CPUS_PER_NODE": "1",
    "SLURM_CPUS_PER_TASK": "1",
    "SLURMD_NODENAME": "n1",
}


def run_outside_slurm(script: str, environment: dict[str, str]) -> str:
    """Run a script outside Slurm, where it must refuse, and return its error message."""
    outside = {"PATH": "/usr/bin:/bin", **environment}
    done = subprocess.run([script, "--out", "out"], env=outside, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


@pytest.mark.parametrize("script", [TRAIN, EVALUATE], ids=["train.sh", "evaluate.sh"])
def test_outside_slurm_it_says_how_to_start_it(script: str) -> None:
    name = Path(script).name
    assert run_outside_slurm(script, {}).startswith(f"{name}: this is not a Slurm job; submit it with: sbatch ")
    halfway = run_outside_slurm(script, {"SLURM_JOB_ID": "1"})
    assert halfway.startswith(f"{name}: SLURM_SUBMIT_DIR is not set, although this is a Slurm job; submit it with")
    assert run_outside_slurm(script, SLURM).startswith(
        f"{name}: sgloc was not found: / has no .venv, and no environment"
    )
