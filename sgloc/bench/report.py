"""Results of a benchmark: a table for people, JSON lines for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Column, Table

from sgloc.bench.timing import spread
from sgloc.memory import peak_memory
from sgloc.strict_json import to_json
from sgloc.train.record import processor, versions

Record = dict[str, Any]

# Numbers from here on are shown in units of 1e9 (G).
_MANY = 10**9
# Columns of the table besides the times: heading -> (key in a measurement's record, unit to divide by).
_COLUMNS: Mapping[str, tuple[str, float]] = {
    "sketches/s": ("sketches_per_second", 1),
    "per GFLOP/s": ("sketches_per_second_per_gflops", 1),
    "points/s": ("points_per_second", 1),
    "GFLOP/s": ("flops_per_second", 1e9),
    "of ceiling": ("ceiling_share", 1),
    "padding": ("padding_share", 1),
    "peak MiB": ("peak_memory_mib", 1),
}


@dataclass
class Report:
    """The results of one benchmark.

    Attributes:
        bench: name of the benchmark.
        device: device it ran on.
        settings: sizes and settings of the measured work.
        measurements: one record per measurement, in display order.
        facts: further records, each with a "name".
        extras: the fields of the measurements' records that have no column in the table.
    """

    bench: str
    device: torch.device
    settings: Record = field(default_factory=dict)
    measurements: list[Record] = field(default_factory=list)
    facts: list[Record] = field(default_factory=list)
    extras: list[Record] = field(default_factory=list)

    def add(
        self,
        name: str,
        seconds: Sequence[float],
        num_sketches: int,
        num_points: int,
        *,
        peak_memory_mib: float | None = None,
        flops: int | None = None,
        ceilings: Sequence[float] = (),
        executed_flops: int | None = None,
        extra: Mapping[str, Any] = {},
    ) -> None:
        """Add a measurement that has just ended, and the numbers derived from it.

        Rates are computed from the median time. Sketches per second per GFLOP/s of the ceiling make machines
        comparable. The share of the ceiling is given twice: as the median over the repeats, and for the fastest repeat
        against the highest ceiling. The padding share is the part of the executed operations that was not needed.

        Args:
            name: name of the measurement.
            seconds: seconds of each repeat.
            num_sketches: sketches per repeat.
            num_points: points per repeat.
            peak_memory_mib: peak memory of the process (on CUDA: of the device) at the end of the measurement, in MiB;
                None reads the peak now.
            flops: necessary operations of matrix products; None if there are no products.
            ceilings: the ceiling of each repeat, in FLOP/s.
            executed_flops: executed operations of matrix products; None if they were not counted.
            extra: further numbers, keyed by name; printed below the table.
        """
        times = spread(seconds)
        record: Record = {
            "name": name,
            "seconds": times,
            "sketches_per_second": num_sketches / times["median"],
            "points_per_second": num_points / times["median"],
            "peak_memory_mib": peak_memory_mib or peak_memory(self.device),
        }
        if ceilings:
            # Operations that would take the same time at the ceiling's rate.
            possible = np.multiply(seconds, ceilings)
            record["sketches_per_second_per_gflops"] = float(np.median(1e9 * num_sketches / possible))
            if flops is not None:
                record |= {"flops": flops, "flops_per_second": flops / times["median"]}
                record["ceiling_share"] = float(np.median(flops / possible))
                record["best_ceiling_share"] = flops / times["minimum"] / max(ceilings)
        if flops is not None and executed_flops is not None:
            record |= {"executed_flops": executed_flops, "padding_share": 1 - flops / executed_flops}
        self.measurements.append({**record, **extra})
        if extra:
            self.extras.append({"name": name, **extra})

    def records(self) -> list[Record]:
        """Return the records in the order of the JSON lines: machine, settings, measurements, facts."""
        about = [{"name": "machine", **machine(self.device)}, {"name": "settings", **self.settings}]
        return [{"bench": self.bench, **record} for record in [*about, *self.measurements, *self.facts]]

    def to_json(self) -> str:
        """Return the records as JSON lines."""
        return "".join(to_json(record) + "\n" for record in self.records())

    def print(self, console: Console) -> None:
        """Print the measurements as a table, and every other record as a line."""
        console.print(f"{self.bench} on " + _line(machine(self.device)), soft_wrap=True)
        console.print(_line(self.settings), soft_wrap=True)
        headings = ("ms", "10% to 90%", *_COLUMNS)
        table = Table("", *(Column(heading, justify="right") for heading in headings))
        for record in self.measurements:
            seconds = record["seconds"]
            median, low, high = (_short(1e3 * seconds[name]) for name in ("median", "percentile_10", "percentile_90"))
            numbers = (_short(record[name] / unit) if name in record else "" for name, unit in _COLUMNS.values())
            table.add_row(record["name"], median, f"{low} to {high}", *numbers)
        console.print(table)
        for record in [*self.extras, *self.facts]:
            rest = {name: value for name, value in record.items() if name != "name"}
            console.print(f"{record['name']}: {_line(rest)}", soft_wrap=True)


def machine(device: torch.device) -> Record:
    """Describe the machine: processor or GPU, threads, library versions and the git revision of sgloc."""
    threads = torch.get_num_threads()
    return {"device": device.type, "processor": processor(device), "threads": threads, **versions()}


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
