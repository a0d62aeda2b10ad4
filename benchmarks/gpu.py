"""`python -m benchmarks gpu OUT`: everything about CUDA, checked and measured on one GPU within eight minutes.

Each check runs in a process of its own, for a limited time, the most important first. What is found is written into
OUT/results.json and OUT/report.md after each, so that a study that is cut short keeps what it has; what the checks say
is in OUT/checks. The exit code is 0 if all checks that have a meaning here passed, else 1.

One switch is set against the program: TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is 1, as in NVIDIA's containers.
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
# A check that has less time than this is not begun.
_LEAST_SECONDS = 10.0
_PASSED, _FAILED, _NOT_RUN, _NO_TIME = "passed", "failed", "not run", "no time left"


@dataclass(frozen=True)
class Check:
    """What is asked of the machine, and for how many seconds at most."""

    name: str
    question: str
    limit: float


CHECKS = (
    Check("machine", "What is there?", 30),
    Check("collectives", "Does a process group of nccl work?", 40),
    Check("kernels", "Do the Triton kernels compile, and compute what the CPU computes?", 100),
    Check("gradients", "Are losses and gradients of every cell those of the CPU?", 90),
    Check("float32", "Is float32 computed in float32, whatever the environment says?", 40),
    Check("lstm", "Does cuDNN take the LSTM's weights as they stand?", 40),
    Check("retrieval", "Are ranks among codes exact?", 40),
    Check("step", "What does a step cost at published sizes?", 90),
    Check("waits", "How often does a step wait for the device, and what does it launch?", 60),
    Check("resume", "Is a run that stopped and went on the same to the bit?", 60),
    Check("ranks", "Do several ranks take the steps of one?", 120),
    Check("commands", "Do the commands work on the device?", 100),
    Check("compile", "Are compiled steps the same, and faster?", 150),
    Check("deepspeed", "Do DeepSpeed's stages take the same steps?", 100),
    Check("sanitizer", "Do the kernels keep to their own memory?", 120),
)


@dataclass
class Outcome:
    """What became of a check."""

    name: str
    question: str
    status: str
    seconds: float = 0.0
    said: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Study:
    """Checks, one after the other.

    Args:
        folder: to write into.
        checks: in order of priority.
        command: of the process that runs a check and writes OUT/checks/NAME.json.
        seconds: for all together.
    """

    def __init__(
        self, folder: Path, checks: Sequence[Check], command: Callable[[Check], list[str]], seconds: float = _SECONDS
    ) -> None:
        self.folder, self.checks, self.command = folder, checks, command
        self.start, self.seconds = time.monotonic(), seconds
        self.outcomes: list[Outcome] = []

    def run(self) -> bool:
        """Run all checks; gives whether none failed and none was left out for want of time."""
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
        return "\n".join(["# CUDA, checked on one machine", "", of_all, "", *heading, *rows, ""])


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
    """Write a file whole or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)


def _run_limited(command: list[str], log: int, limit: float) -> int | None:
    """The exit code of a command; None if it was ended, with all that it started, because it took too long."""
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
    """Run the study; gives its exit code.

    Raises:
        ConfigError: if there is no CUDA device, or a check of that name.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu", description="Check and measure everything about CUDA on one GPU."
    )
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--cpu", action="store_true", help="a dry run on the CPU: sizes so small that it takes seconds")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="for all checks together")
    parser.add_argument("--only", default="", help="names of checks, comma-separated; empty: all")
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
            raise ConfigError(f"there is no check {name!r}; give some of {', '.join(check.name for check in CHECKS)}")
    return [check for check in CHECKS if not names or check.name in names]


def _require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("torch sees no CUDA device; --cpu makes a dry run of the checks")
