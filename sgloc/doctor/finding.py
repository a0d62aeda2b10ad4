"""What the doctor found: a table for people, JSON lines for programs."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from rich.console import Console
from rich.table import Column, Table

from sgloc.masking import mask, mask_all

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What came of one check.

    Attributes:
        check: its name.
        status: "problem": a run would fail, or waste most of what it is given.
        found: what was seen.
        advice: what to do; empty where all is well.
        numbers: what was measured, by name and unit.
    """

    check: str
    status: Status
    found: str
    advice: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def judged(
        cls, check: str, is_well: bool, otherwise: Status, found: str, advice: str, numbers: Mapping[str, float] = {}
    ) -> "Finding":
        """A finding that is "ok" where all is well, and otherwise of another status with an advice."""
        return cls(check, "ok", found, "", numbers) if is_well else cls(check, otherwise, found, advice, numbers)


def has_problem(findings: Iterable[Finding]) -> bool:
    """Whether a run should not be started like this."""
    return any(finding.status == "problem" for finding in findings)


def to_json(findings: Iterable[Finding]) -> str:
    """JSON lines, a finding each."""
    return "".join(json.dumps(mask_all(asdict(finding))) + "\n" for finding in findings)


def print_table(findings: Iterable[Finding], console: Console) -> None:
    """A row for each finding."""
    table = Table(Column("check", no_wrap=True), Column("", no_wrap=True), "found", "what to do")
    for finding in findings:
        table.add_row(finding.check, finding.status, mask(finding.found), mask(finding.advice))
    console.print(table)
