"""`python -m benchmarks gpu OUT`: check and measure everything that uses CUDA, on one GPU within eight minutes.

Each check runs in its own process with a time limit, the most important first. After each check the results so far are
written to OUT/results.json and OUT/report.md, so that an interrupted study keeps them. The checks' output is in
OUT/checks. The exit code is 0 if every applicable check passed, else 1.

TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set to 1, as in NVIDIA's containers, to test that sgloc resists it.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sgloc.errors import ConfigError

_SECONDS = 480.0
# A check is not started with less time than this.
_LEAST_SECONDS = 10.0
_PASSED, _FAILED, _NOT_RUN, _NO_TIME = "passed", "failed", "not run", "no time left"


@dataclass(frozen=True)
class Check:
    """A check: its name, the question it answers, and its time limit in seconds."""

    name: str
    question: str
    limit: float


CHECKS = (
    Check("machine", "Which hardware and software are installed?", 30),
    Check("collectives", "Does an NCCL process group work?", 40),
    Check("kernels", "Do the Triton kernels compile, and agree with the CPU?", 100),
    Check("gradients", "Do the losses and gradients of every cell agree with the CPU's?", 90),
    Check("float32", "Is float32 computed in float32, whatever the environment says?", 40),
    Check("lstm", "Does cuDNN use the LSTM's weights without copying them?", 40),
    Check("retrieval", "Are retrieval ranks exact?", 40),
    Check("step", "What does a training step cost at the published sizes?", 90),
    Check("waits", "How often does a step wait for the device, and what does it launch?", 60),
    Check("resume", "Is a resumed run bit-identical to an uninterrupted one?", 60),
    Check("ranks", "Do several ranks take the same steps as one?", 120),
    Check("commands", "Do the commands work on the device?", 100),
    Check("compile", "Are compiled steps equal to plain ones, and faster?", 150),
    Check("deepspeed", "Do all ZeRO stages take the same steps as DDP?", 100),
    Check("sanitizer", "Do the kernels stay within their own memory?", 120),
)


@dataclass
class Outcome:
    """The result of a check."""

    name: str
    question: str
    status: str
    seconds: float = 0.0
    said: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Study:
    """A sequence of checks with a common time limit.

    Args:
        folder: folder to write into.
        checks: checks in order of priority.
        command: makes the command line that runs a check and writes OUT/checks/NAME.json.
        seconds: time limit for all checks together.
    """

    def __init__(
        self, folder: Path, checks: Sequence[Check], command: Callable[[Check], list[str]], seconds: float = _SECONDS
    ) -> None:
        self.folder, self.checks, self.command = folder, checks, command
        self.start, self.seconds = time.monotonic(), seconds
        self.outcomes: list[Outcome] = []

    def run(self) -> bool:
        """Run all checks; return whether none failed and none was skipped for lack of time."""
        (self.folder / "checks").mkdir(parents=True, exist_ok=True)
        for check in self.checks:
            outcome = self._run(check)
            self.outcomes.append(outcome)
            self._write()
            print(f"{outcome.status:<12} {outcome.seconds:6.1f} s  {outcome.name:<12} {outcome.said}", flush=True)
        return all(outcome.status in (_PASSED, _NOT_RUN) for outcome in self.outcomes)

    def _run(self, check: Check) -> Outcome:
        outcome = Outcome(check.name, check.question, _NO_TIME)
        start = time.monotonic()
        left = self.seconds - (start - self.start)
        if left < _LEAST_SECONDS:
            return outcome
        limit = min(check.limit, left)
        found = self.folder / "checks" / f"{check.name}.json"
        found.unlink(missing_ok=True)
        with found.with_suffix(".log").open("wb") as log:
            code = _run_limited(self.command(check), log.fileno(), limit)
        outcome.seconds = round(time.monotonic() - start, 1)
        try:
            told = json.loads(found.read_text())
            outcome.status, outcome.said, outcome.facts = told["status"], told["said"], told["facts"]
        except (OSError, ValueError, KeyError):
            outcome.status = _FAILED
            outcome.said = f"took longer than {limit:.0f} s" if code is None else f"the process ended with code {code}"
            outcome.said += f"; see {found.with_suffix('.log')}"
        return outcome

    def _write(self) -> None:
        results = {
            "seconds": round(time.monotonic() - self.start, 1),
            "is_complete": len(self.outcomes) == len(self.checks),
            "checks": [asdict(outcome) for outcome in self.outcomes],
        }
        _replace(self.folder / "results.json", json.dumps(results, indent=1) + "\n")
        _replace(self.folder / "report.md", self._report())

    def _report(self) -> str:
        counts = {status: sum(outcome.status == status for outcome in self.outcomes) for status in _STATUSES}
        summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        rows = [
            f"| {outcome.name} | {outcome.question} | **{outcome.status}** | {outcome.seconds} | {_cell(outcome)} |"
            for outcome in self.outcomes
        ]
        heading = ["| check | question | result | s | found |", "| --- | --- | --- | --- | --- |"]
        of_all = f"{len(self.outcomes)} of {len(self.checks)} checks: {summary}."
        return "\n".join(["# CUDA checks on one machine", "", of_all, "", *heading, *rows, ""])


_STATUSES = (_PASSED, _FAILED, _NOT_RUN, _NO_TIME)


def _cell(outcome: Outcome) -> str:
    facts = "; ".join(f"{name}: {_short(value)}" for name, value in outcome.facts.items())
    return " ".join(f"{outcome.said} {facts}".split()).replace("|", "/")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return str(value)


def _replace(path: Path, text: str) -> None:
    """Write a file atomically."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)


def _run_limited(command: list[str], log: int, limit: float) -> int | None:
    """Run a command and return its exit code; None if it was killed, with its child processes, after the time limit."""
    environment = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main(words: list[str]) -> int:
    """Run the study, and return its exit code.

    Raises:
        ConfigError: if there is no CUDA device, or no check of a given name.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu", description="Check and measure everything that uses CUDA, on one GPU."
    )
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--cpu", action="store_true", help="dry run on the CPU, with sizes that take seconds")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="time limit for all checks together")
    parser.add_argument("--only", default="", help="names of the checks to run, comma-separated; default: all")
    options = parser.parse_args(words)
    chosen = _chosen(options.only)
    if not options.cpu:
        _require_cuda()
    flags = ["--cpu"] if options.cpu else []

    def command(check: Check) -> list[str]:
        return [sys.executable, "-m", "benchmarks.gpu_checks", check.name, str(options.out), *flags]

    passed = Study(options.out, chosen, command, options.seconds).run()
    print(f"{options.out}/report.md")
    return 0 if passed else 1


def _chosen(only: str) -> list[Check]:
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in {check.name for check in CHECKS}:
            raise ConfigError(f"unknown check {name!r}; the checks are {', '.join(check.name for check in CHECKS)}")
    return [check for check in CHECKS if not names or check.name in names]


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("torch finds no CUDA device; for a dry run on the CPU, add --cpu")
