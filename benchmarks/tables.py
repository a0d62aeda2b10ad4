"""What a measurement of many alike things found: tables for people, JSON lines for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable

from sgloc.bench.report import Record, machine
from sgloc.strict_json import to_json


@dataclass(frozen=True)
class Table:
    """Rows of numbers.

    Attributes:
        name: what the rows are about.
        headings: of the columns that people see, each with how its numbers are written (as `format` takes it), by the
            numbers' name in the rows.
        rows: each of named numbers; where one is None or missing, the cell stays empty.
    """

    name: str
    headings: Mapping[str, tuple[str, str]]
    rows: Sequence[Record]


@dataclass
class TableReport:
    """All that one command measured.

    Attributes:
        bench: which command.
        settings: what was measured, in words and numbers.
        tables: in the order in which they are shown.
        facts: sentences, shown below them, each with the numbers that it tells.
    """

    bench: str
    settings: Record
    tables: list[Table] = field(default_factory=list)
    facts: list[tuple[str, Record]] = field(default_factory=list)

    def records(self) -> list[Record]:
        """One record a line of JSON: machine, settings, every row of the tables, facts."""
        about = [{"name": "machine", **machine(torch.device("cpu"))}, {"name": "settings", **self.settings}]
        rows = [{"name": table.name, **row} for table in self.tables for row in table.rows]
        return [{"bench": self.bench, **record} for record in [*about, *rows, *(fact for _, fact in self.facts)]]

    def to_json(self) -> str:
        """JSON lines."""
        return "".join(to_json(record) + "\n" for record in self.records())

    def print(self, console: Console) -> None:
        """The tables, and the rest in lines."""
        for about, record in ((f"{self.bench} on ", machine(torch.device("cpu"))), ("", self.settings)):
            console.print(about + ", ".join(f"{name} {value}" for name, value in record.items()), soft_wrap=True)
        for table in self.tables:
            shown = RichTable(*(Column(heading, justify="right") for heading, _ in table.headings.values()))
            for row in table.rows:
                shown.add_row(*(_cell(row.get(name), style) for name, (_, style) in table.headings.items()))
            console.print(f"{table.name}:")
            console.print(shown)
        for sentence, _ in self.facts:
            console.print(sentence, soft_wrap=True)


def _cell(value: object, style: str) -> str:
    return "" if value is None else format(value, style)
