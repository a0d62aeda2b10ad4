"""Where a run's numbers go: metrics.jsonl always, the terminal, and Weights & Biases when asked."""

import json
import os
import resource
from pathlib import Path
from typing import Any, Protocol

import fsspec.core
import torch
from rich.console import Console

from sgloc.config import Config

METRICS_NAME = "metrics.jsonl"

Record = dict[str, Any]


class Logger(Protocol):
    """Takes a run's records; each has a "step" and an "event"."""

    def log(self, record: Record) -> None:
        """Take one record."""
        ...

    def close(self) -> None:
        """No record will follow."""
        ...


class JSONLines:
    """metrics.jsonl in the run's folder: one record a line.

    When a run resumes at a step, records of later steps, which will come again, and a line that a kill cut short are
    dropped.
    """

    def __init__(self, run_dir: str, resumed_step: int) -> None:
        self.file_system, root = fsspec.core.url_to_fs(run_dir)
        self.path = f"{root}/{METRICS_NAME}"
        self.lines = [line for line in self._read() if _step_of(line) <= resumed_step]
        self._rewrite()

    def _read(self) -> list[str]:
        if not self.file_system.exists(self.path):
            return []
        return self.file_system.cat_file(self.path).decode(errors="replace").splitlines()  # type: ignore[no-any-return]

    def _rewrite(self) -> None:
        """Replace the file in one move, so that a kill leaves the old or the new one."""
        temporary = f"{self.path}.tmp"
        self.file_system.pipe_file(temporary, "".join(line + "\n" for line in self.lines).encode())
        self.file_system.mv(temporary, self.path)

    def log(self, record: Record) -> None:
        """Append a record at once."""
        self.lines.append(json.dumps(record))
        if "file" in _protocols(self.file_system):
            with Path(self.path).open("a") as stream:
                stream.write(self.lines[-1] + "\n")
        else:
            # An object store cannot append.
            self._rewrite()

    def close(self) -> None:
        """Nothing is held back."""


def _protocols(file_system: Any) -> tuple[str, ...]:
    return (file_system.protocol,) if isinstance(file_system.protocol, str) else tuple(file_system.protocol)


def _step_of(line: str) -> float:
    """The step of a line, or infinity for one that was cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Terminal:
    """One line a record on standard error."""

    def __init__(self, num_steps: int) -> None:
        self.console, self.num_steps = Console(stderr=True, highlight=False, markup=False), num_steps

    def log(self, record: Record) -> None:
        """Print a record."""
        values = "  ".join(f"{name} {_short(value)}" for name, value in record.items() if name not in ("step", "event"))
        self.console.print(f"{record['step']:>7}/{self.num_steps} {record['event']:<10} {values}", soft_wrap=True)

    def close(self) -> None:
        """Nothing is held back."""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class WeightsAndBiases:
    """A Weights & Biases run, taken up again under the same id when the training is resumed."""

    def __init__(self, config: Config, resolved: Record, run_id: str | None) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        self.run = wandb.init(
            project=config.log.wandb_project,
            mode=config.log.wandb,
            dir=config.train.run_dir if "://" not in config.train.run_dir else None,
            id=run_id,
            resume="allow",
            config=resolved,
        )
        self.run_id: str = self.run.id
        # Our own step is the axis: W&B's must never go back, and a resumed run does.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def log(self, record: Record) -> None:
        """Send a record's numbers, named event/name."""
        numbers = {
            f"{record['event']}/{name}": value
            for name, value in record.items()
            if isinstance(value, (int, float)) and name != "step"
        }
        self.run.log({"step": record["step"], **numbers})

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has held at once, in MiB: the device's on CUDA, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
