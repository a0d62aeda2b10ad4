"""launch/slurm.py: training through submitit under a real Slurm."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch.slurm import main
from launch.submit import LaunchError
from sgloc.program import run_program
from tests.slurm.cluster import Cluster
from tests.train.launch import losses, records, tiny_options

STEPS = ("--train.num_steps", "32")
SMALL = ("--cpus-per-process=1", "--logs=logs")


@pytest.mark.slow
def test_a_job_that_is_out_of_time_or_preempted_goes_on(
    cluster: Cluster, tmp_path: Path, picture_shards: str, unbroken: list[tuple[float, ...]]
) -> None:
    run_dir = tmp_path / "run"
    words = ("--nodes", "2", "--gpus_per_node", "2", *SMALL, "--wait", "train")
    command = [sys.executable, "-m", "launch.slurm", *words, *tiny_options(run_dir, picture_shards), *STEPS]
    # If scontrol is slow, Slurm kills it together with the job that it has just requeued. The first time, it exits as
    # a shell script does after a signal; the second time, the signal kills it.
    slow = tmp_path / "scontrol"
    slow.write_text(
        f"""#!/bin/sh
        {shutil.which("scontrol")} "$@" || exit
        [ "$1" = requeue ] || exit 0
        mkdir {tmp_path}/requeued && trap 'exit 143' TERM
        sleep 60 &
        wait
        """
    )
    slow.chmod(0o755)
    path = f"{tmp_path}:{cluster.environment['PATH']}"
    environment = {**cluster.environment, "PATH": path, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        submitted = re.match(rf"submitted (\d+); logs in logs, run in {run_dir}\n", launcher.stdout.readline())
        assert submitted is not None
        cluster.wait_until(lambda: len(records(run_dir)) >= 5, "step 5")
        cluster.run("scancel", "--signal=USR2", submitted[1])
        cluster.wait_until(lambda: len(records(run_dir)) >= 16, "step 16")
        # SIGTERM is what Slurm sends before it takes nodes away, unless it is configured otherwise.
        cluster.run("scancel", "--signal=TERM", submitted[1])
        told = launcher.stdout.read()
    log = (tmp_path / f"logs/{submitted[1]}_0_log.err").read_text()
    assert (launcher.returncode, told) == (0, "done\n"), log
    assert losses(records(run_dir)) == unbroken[:32]
    assert log.count("4 process(es) by srun on 2 node(s)") == 3
    assert log.count("stopped by a signal at step") == 2


@pytest.mark.slow
def test_what_goes_wrong_is_told(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--wait", "train", "--data", "nosuch"]) == 2
    told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"sgloc train: nosuch/manifest.json does not exist; .* \(log: .*/logs/\d+_0_log.err\)", told[1])
    with pytest.raises(LaunchError, match="the tasks cannot be submitted: "):
        main([*SMALL, "--partition", "nosuch", "train", "--data", "x"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--nodes", "2"], "the command to start is missing; pass one, such as train"),
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (
            ["train", "--train.sed", "3"],
            "unknown option --train.sed; did you mean --train.seed?; see `sgloc train --help`",
        ),
        (["--nodes", "0", "train", "--data", "x"], "nodes must be at least 1, not 0"),
        (["--gpus-per-node", "-1", "train", "--data", "x"], "gpus_per_node must be at least 0, not -1"),
        (
            ["--minutes", "5", "train", "--data", "x"],
            "minutes must be at least 10, not 5; a run is asked to save 120 s",
        ),
        (["--slurm", "account", "train", "--data", "x"], "slurm must be NAME=VALUE, not 'account'"),
        (
            ["--tasks", "2", "train", "--data", "x"],
            "--tasks applies only to `sgloc shard`; leave it out to start `sgloc tr",
        ),
        (["--folder", "logs", "train"], "unknown option --folder; it is now --logs"),
    ],
)
def test_mistakes_are_told(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_program("launch.slurm", main, words)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err
