"""What a measurement found: a table for people, JSON lines for programs."""

import dataclasses
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table

from sgloc.bench.timing import Ceiling, Spread
from sgloc.memory import peak_memory
from sgloc.strict_json import to_json
from sgloc.train.versions import versions

Record = dict[str, Any]

# From here on numbers are shown in thousands of millions.
_MANY = 10**9


@dataclass(frozen=True)
class Measurement:
    """One measured thing.

    Attributes:
        name: what was measured.
        seconds: of each repeat.
        num_sketches: sketches in a repeat.
        num_points: points in a repeat.
        peak_memory_mib: the most memory the process (on CUDA: on the device) had held at once by the end of it.
        flops: operations of the matrix products that have to be computed; None: there are none.
        ceilings: FLOP/s that each repeat's rate is compared with.
        executed_flops: operations of the matrix products that were computed; None: not counted.
        extra: more numbers.
    """

    name: str
    seconds: Sequence[float]
    num_sketches: int
    num_points: int
    peak_memory_mib: float
    flops: int | None = None
    ceilings: Sequence[float] = ()
    executed_flops: int | None = None
    extra: Record = field(default_factory=dict)

    @property
    def record(self) -> Record:
        """All of it, with what follows from it: rates of the median; sketches a second for each GFLOP/s of the ceiling,
        which compares machines; the share of the ceiling, as the median of the repeats and of the fastest repeat and
        ceiling; the share of operations that were computed without need, on padding."""
        spread = Spread.of(self.seconds)
        record: Record = {
            "name": self.name,
            "seconds": dataclasses.asdict(spread),
            "sketches_per_second": self.num_sketches / spread.median,
            "points_per_second": self.num_points / spread.median,
            "peak_memory_mib": self.peak_memory_mib,
        }
        if self.ceilings:
            pairs = zip(self.seconds, self.ceilings, strict=True)
            shares = [self.num_sketches / seconds / (ceiling / 1e9) for seconds, ceiling in pairs]
            record["sketches_per_second_per_gflops"] = statistics.median(shares)
        if self.flops is not None:
            record |= {"flops": self.flops, "flops_per_second": self.flops / spread.median}
            pairs = zip(self.seconds, self.ceilings, strict=True)
            record["ceiling_share"] = statistics.median(self.flops / seconds / ceiling for seconds, ceiling in pairs)
            record["best_ceiling_share"] = self.flops / spread.minimum / max(self.ceilings)
        if self.flops is not None and self.executed_flops is not None:
            record["executed_flops"] = self.executed_flops
            record["padding_share"] = 1 - self.flops / self.executed_flops
        return record | self.extra


@dataclass
class Report:
    """All that one command measured.

    Attributes:
        bench: which command.
        settings: the sizes of what was measured, in words and numbers.
        device: on which.
        measurements: in the order in which they are shown.
        facts: further records, each with a "name".
    """

    bench: str
    settings: Record
    device: torch.device
    measurements: list[Measurement] = field(default_factory=list)
    facts: list[Record] = field(default_factory=list)

    def add(self, name: str, seconds: list[float], num_sketches: int, num_points: int, **more: Any) -> None:
        """Add a measurement that is done just now; `more` are further fields of `Measurement`."""
        memory = more.pop("peak_memory_mib", None) or peak_memory(self.device)
        self.measurements.append(Measurement(name, seconds, num_sketches, num_points, memory, **more))

    def add_ceiling(self, ceiling: Ceiling) -> None:
        """Say what the rates were compared with."""
        self.facts.append(
            {
                "name": "ceiling",
                "size": ceiling.size,
                "dtype": str(ceiling.dtype).removeprefix("torch."),
                "rounds": len(ceiling.rounds),
                "flops_per_second": max(ceiling.rounds),
                "median_flops_per_second": statistics.median(ceiling.rounds),
                "torch_mm_flops_per_second": max(ceiling.rounds_of_torch),
            }
        )

    def records(self) -> list[Record]:
        """One record a line of JSON: machine, settings, measurements, facts."""
        about = [{"name": "machine", **machine(self.device)}, {"name": "settings", **self.settings}]
        measured = [measurement.record for measurement in self.measurements]
        return [{"bench": self.bench, **record} for record in [*about, *measured, *self.facts]]

    def to_json(self) -> str:
        """JSON lines."""
        return "".join(to_json(record) + "\n" for record in self.records())

    def print(self, console: Console) -> None:
        """A table of the measurements, and the rest in lines."""
        console.print(f"{self.bench} on " + _line(machine(self.device)), soft_wrap=True)
        console.print(_line(self.settings), soft_wrap=True)
        rows = [(measurement.name, _cells(measurement.record)) for measurement in self.measurements]
        table = Table("", *(Column(heading, justify="right") for heading in rows[0][1]))
        for name, cells in rows:
            table.add_row(name, *cells.values())
        console.print(table)
        for record in [
            *({"name": one.name, **one.extra} for one in self.measurements if one.extra),
            *self.facts,
        ]:
            rest = {name: value for name, value in record.items() if name != "name"}
            console.print(f"{record['name']}: {_line(rest)}", soft_wrap=True)


def _cells(record: Record) -> dict[str, str]:
    """A measurement's row of the table, by heading."""
    seconds = record["seconds"]
    spread = [_short(1e3 * seconds[name]) for name in ("median", "percentile_10", "percentile_90")]
    numbers = {
        "sketches/s": record["sketches_per_second"],
        "per GFLOP/s": record.get("sketches_per_second_per_gflops"),
        "points/s": record["points_per_second"],
        "GFLOP/s": record["flops_per_second"] / 1e9 if "flops_per_second" in record else None,
        "of ceiling": record.get("ceiling_share"),
        "padding": record.get("padding_share"),
        "peak MiB": record["peak_memory_mib"],
    }
    return {"ms": spread[0], "10% to 90%": " to ".join(spread[1:])} | {
        heading: "" if number is None else _short(number) for heading, number in numbers.items()
    }


def machine(device: torch.device) -> Record:
    """What computes: processor or GPU, threads, versions and the program's git revision."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": device.type, "processor": name, "threads": torch.get_num_threads(), **versions()}


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _line(record: Record) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in record.items())


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return f"({_line(value)})"
    if not isinstance(value, int | float):
        return str(value)
    if abs(value) >= _MANY:
        return f"{value / 1e9:,.2f}G"
    return f"{value:,.0f}" if abs(value) >= 1000 or isinstance(value, int) else f"{value:.3g}"
