"""Results of a study with many similar rows: tables for people, JSON lines for programs."""

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
    """A table of numbers.

    Attributes:
        name: title of the table, and name of its rows' records.
        headings: printed columns: key in the rows -> (heading, format specification).
        rows: one record per row; a missing or None value leaves its cell empty.
    """

    name: str
    headings: Mapping[str, tuple[str, str]]
    rows: Sequence[Record]


@dataclass
class TableReport:
    """The results of one study.

    Attributes:
        bench: name of the study.
        settings: sizes and settings of the measured work.
        tables: tables in display order.
        facts: sentences printed below the tables, each with its numbers as a record.
    """

    bench: str
    settings: Record
    tables: list[Table] = field(default_factory=list)
    facts: list[tuple[str, Record]] = field(default_factory=list)

    def records(self) -> list[Record]:
        """Return the records in the order of the JSON lines: machine, settings, rows of all tables, facts."""
        about = [{"name": "machine", **machine(torch.device("cpu"))}, {"name": "settings", **self.settings}]
        rows = [{"name": table.name, **row} for table in self.tables for row in table.rows]
        return [{"bench": self.bench, **record} for record in [*about, *rows, *(fact for _, fact in self.facts)]]

    def to_json(self) -> str:
        """Return the records as JSON lines."""
        return "".join(to_json(record) + "\n" for record in self.records())

    def print(self, console: Console) -> None:
        """Print the tables, and everything else as lines."""
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
