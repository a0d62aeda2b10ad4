"""`python -m benchmarks gpu`: every check on the CPU at sizes that take seconds, and the study that runs them."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import CHECKS, Check, Study
from benchmarks.gpu_checks import Setting
from benchmarks.gpu_checks.__main__ import CHECKS as FUNCTIONS
from benchmarks.gpu_checks.__main__ import run
from sgloc.nn.recurrent import bidirectional
from tests.patience import PATIENCE

# These checks start processes or a compiler, or run several commands.
EXHAUSTIVE = {"ranks", "commands", "compile"}
NEED_A_GPU = {"lstm", "waits", "sanitizer"}


@pytest.fixture(autouse=True)
def _as_in_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def dry(folder: Path) -> Setting:
    return Setting(folder, torch.device("cpu"), is_tiny=True)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.exhaustive] if name in EXHAUSTIVE else [], id=name)
        for name in FUNCTIONS
        # DeepSpeed's imports raise warnings, which are errors here; a test below runs it in a separate process.
        if name != "deepspeed"
    ],
)
def test_every_check_runs_on_a_cpu(name: str, tmp_path: Path) -> None:
    found = run(name, dry(tmp_path))
    assert found["status"] == ("not run" if name in NEED_A_GPU else "passed"), found["said"]
    assert bool(found["facts"]) == (name not in NEED_A_GPU)
    json.dumps(found["facts"])


def test_every_check_has_its_place_in_the_study() -> None:
    assert [check.name for check in CHECKS] == list(FUNCTIONS)


def test_a_check_fails_where_the_device_computes_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = bidirectional.Bidirectional.forward
    calls = iter(range(100))

    def forward(*inputs: Any) -> torch.Tensor:
        # The check alternates between the reference and the device; distort the device's result.
        return right(*inputs) * (1.01 if next(calls) % 2 else 1.0)

    monkeypatch.setattr(bidirectional.Bidirectional, "forward", forward)
    found = run("gradients", dry(tmp_path))
    assert found["status"] == "failed"
    assert "error" in found["said"]


STUBBORN = {
    "good": "print('seen'); write({'status': 'passed', 'said': '', 'facts': {'speed': 1.25, 'sizes': [1, 2]}})",
    "bad": "write({'status': 'failed', 'said': 'the sum is 2 | not 1', 'facts': {}})",
    "crashes": "print('on the way'); os._exit(3)",
    "hangs": "import time; time.sleep(60)",
    "elsewhere": "write({'status': 'not run', 'said': 'needs two GPUs', 'facts': {}})",
}


def study(folder: Path, *names: str, seconds: float = 100.0) -> Study:
    """Return a study of checks from STUBBORN."""

    def command(check: Check) -> list[str]:
        write = (
            f"def write(found): open({str(folder / 'checks' / check.name)!r} + '.json', 'w').write(json.dumps(found))"
        )
        return [sys.executable, "-c", f"import json, os\n{write}\n{STUBBORN[check.name]}"]

    return Study(
        folder, [Check(name, f"Is it {name}?", 1.0 if name == "hangs" else 30.0) for name in names], command, seconds
    )


def test_no_failing_check_stops_the_study(tmp_path: Path) -> None:
    assert not study(tmp_path, *STUBBORN).run()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["is_complete"]
    assert {check["name"]: check["status"] for check in results["checks"]} == {
        "good": "passed",
        "bad": "failed",
        "crashes": "failed",
        "hangs": "failed",
        "elsewhere": "not run",
    }
    said = {check["name"]: check["said"] for check in results["checks"]}
    assert said["crashes"].startswith("the process ended with code 3; see ")
    assert said["hangs"].startswith("took longer than 1 s; see ")
    assert (tmp_path / "checks" / "crashes.log").read_text() == "on the way\n"
    report = (tmp_path / "report.md").read_text()
    assert "5 of 5 checks: 1 passed, 3 failed, 1 not run." in report
    assert "| good | Is it good? | **passed** |" in report
    assert "speed: 1.25; sizes: 1, 2" in report
    assert "the sum is 2 / not 1" in report


def test_what_has_no_meaning_here_is_no_failure(tmp_path: Path) -> None:
    assert study(tmp_path, "good", "elsewhere").run()


def test_a_check_that_there_is_no_time_for_is_left_out_and_told(tmp_path: Path) -> None:
    assert not study(tmp_path, "good", seconds=5.0).run()
    assert "**no time left**" in (tmp_path / "report.md").read_text()


def test_a_study_that_is_cut_short_keeps_what_it_has(tmp_path: Path) -> None:
    whole = study(tmp_path, "good", "bad")
    original = whole._run

    def cut_short(check: Check) -> Any:
        if check.name == "bad":
            raise KeyboardInterrupt
        return original(check)

    whole._run = cut_short  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        whole.run()
    results = json.loads((tmp_path / "results.json").read_text())
    assert [check["status"] for check in results["checks"]] == ["passed"]
    assert not results["is_complete"]
    assert "1 of 2 checks: 1 passed." in (tmp_path / "report.md").read_text()


def start(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=dict(os.environ))


def test_a_dry_run_by_the_command(tmp_path: Path) -> None:
    done = start("gpu", str(tmp_path), "--cpu", "--only", "float32,lstm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 checks: 1 passed, 1 not run." in (tmp_path / "report.md").read_text()


@pytest.mark.exhaustive
def test_the_check_of_deepspeed_by_the_command(tmp_path: Path) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed; install it with pip install 'sgloc[deepspeed]'")
    done = start("gpu", str(tmp_path), "--cpu", "--only", "deepspeed")
    assert done.returncode == 0, done.stdout + (tmp_path / "checks" / "deepspeed.log").read_text()
    assert "1 of 1 checks: 1 passed." in (tmp_path / "report.md").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = start("gpu", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["benchmarks: torch finds no CUDA device; for a dry run on the CPU, add --cpu"]
    assert not (tmp_path / "out").exists()


def test_a_study_that_does_not_exist() -> None:
    done = start("gpus")
    assert done.returncode == 2
    assert "usage: python -m benchmarks <study>" in done.stderr
