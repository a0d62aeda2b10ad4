"""Findings of the doctor, and their output as a table or as JSON lines."""

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
    """The result of one check.

    Attributes:
        check: name of the check.
        status: "ok", "warning", or "problem" if a run would fail or waste most of its resources.
        found: what the check observed.
        advice: what to do; empty if the status is "ok".
        numbers: measurements; each name includes the unit.
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
        """Return an "ok" finding if `is_well`; otherwise one with the status `otherwise` and the advice."""
        return cls(check, "ok", found, "", numbers) if is_well else cls(check, otherwise, found, advice, numbers)


def has_problem(findings: Iterable[Finding]) -> bool:
    """Return whether any finding is a problem, so that a run should not be started."""
    return any(finding.status == "problem" for finding in findings)


def to_json(findings: Iterable[Finding]) -> str:
    """Format findings as JSON lines."""
    return "".join(json.dumps(mask_all(asdict(finding))) + "\n" for finding in findings)


def print_table(findings: Iterable[Finding], console: Console) -> None:
    """Print findings as a table, one row each."""
    table = Table(Column("check", no_wrap=True), Column("", no_wrap=True), "found", "what to do")
    for finding in findings:
        table.add_row(finding.check, finding.status, mask(finding.found), mask(finding.advice))
    console.print(table)
