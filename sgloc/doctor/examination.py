"""The framework of all checks: participating ranks, gathering of their results, and time limits."""

import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sgloc import dist
from sgloc.doctor.finding import Finding, has_problem
from sgloc.errors import SglocError
from sgloc.faults import as_told

logger = logging.getLogger(__name__)

# How many ranks a finding names before "and N more".
_NUM_NAMED = 4

Value = TypeVar("Value")


@dataclass
class Examination:
    """A series of collective checks; every rank receives the findings of all ranks.

    Attributes:
        rank: rank of this process.
        hosts: host name of each rank.
        timeout: time limit of one check on one rank, in seconds.
        show: displays findings.
        findings: findings so far, the same on all ranks.
    """

    rank: int
    hosts: Sequence[str]
    timeout: float
    show: Callable[[list[Finding]], None]
    findings: list[Finding] = field(default_factory=list)

    def check(
        self, name: str, look: Callable[[], Value], advice: str, judge: "Judge[Value] | None" = None
    ) -> dict[int, Value] | None:
        """Run one check on all ranks and add its findings. Collective: all ranks must call it.

        Args:
            name: name of the check.
            look: collects this rank's facts; an exception becomes a finding of status "problem".
            advice: what to do about such an exception.
            judge: derives findings from the facts of all ranks; None for no findings.

        Returns:
            The facts of each rank, by rank; None if there is a problem.

        Raises:
            RuntimeError: if another rank is gone or does not respond.
        """
        value, reason = None, None
        try:
            with self.limited(name):
                value = look()
        except Exception as error:
            if dist.lost_rank(error):
                # Without the lost rank, nothing can be gathered.
                raise
            # Report bugs as findings too, so that the other ranks do not wait for this one.
            is_known = isinstance(error, SglocError | OSError | RuntimeError)
            reason = " ".join(str(error if is_known else as_told(error)).split())
        values, reasons = zip(*dist.Group().gather((value, reason)), strict=True)
        facts: dict[int, Any] = dict(enumerate(values))
        failed = by_value({rank: reason for rank, reason in enumerate(reasons) if reason is not None})
        found = [Finding(name, "problem", f"{self.names(who)}: {reason}", advice) for reason, who in failed.items()]
        if judge is not None and not found:
            found = list(judge(facts, self))
        self.findings += found
        return None if has_problem(found) else facts

    @contextlib.contextmanager
    def limited(self, check: str, patience: float = 0.0) -> Iterator[None]:
        """Limit the duration of a check. A hang in a driver or file system cannot be interrupted, so on a time-out the
        process shows the findings so far and exits.

        Args:
            check: name of the check.
            patience: seconds to allow beyond the timeout.
        """
        timer = threading.Timer(self.timeout + patience, self._give_up, [check])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self, check: str) -> None:
        found = f"rank {self.rank} ({socket.gethostname()}) has not finished this check after {self.timeout:.0f} s"
        if self.rank == 0:
            advice = "find out what it waits for, or raise timeout"
            self.show([*self.findings, Finding(check, "problem", found, advice)])
            sys.stdout.flush()
        else:
            logger.error("%s: %s", check, found)
        os._exit(1)

    def names(self, ranks: Iterable[int]) -> str:
        """Format ranks with their hosts, shortened to the first few."""
        listed = list(ranks)
        named = ", ".join(f"rank {rank} ({self.hosts[rank]})" for rank in listed[:_NUM_NAMED])
        more = len(listed) - _NUM_NAMED
        return named + (f" and {more} more" if more > 0 else "")

    def differences(self, values: Mapping[int, str]) -> list[str]:
        """Describe each value that differs from the most common one (on a tie, from the lowest rank's), one sentence
        per value; `values` are the ranks' values as text."""
        groups = by_value(values)
        common = max(groups, key=lambda value: len(groups[value]))
        others = ((value, who) for value, who in groups.items() if value != common)
        return [f"{self.names(who)} has {value}, others have {common}" for value, who in others]

    def on_each_host(self) -> dict[str, list[int]]:
        """Return the ranks of each host."""
        return by_value(dict(enumerate(self.hosts)))


Judge = Callable[[Mapping[int, Value], Examination], Iterable[Finding]]
"""Derives findings from the facts of all ranks."""


def by_value(values: Mapping[int, Value]) -> dict[Value, list[int]]:
    """Group ranks by their value, in order of first appearance."""
    groups: dict[Value, list[int]] = {}
    for rank, value in values.items():
        groups.setdefault(value, []).append(rank)
    return groups


def merged(facts: Mapping[int, Finding], ranks: Examination) -> list[Finding]:
    """Merge the ranks' own findings: if all are "ok", the lowest rank's; otherwise one finding per advice, naming the
    ranks it applies to."""
    troubles = by_value({rank: (one.status, one.advice) for rank, one in facts.items() if one.status != "ok"})
    firsts = [(facts[who[0]], ranks.names(who)) for who in troubles.values()]
    return [replace(first, found=f"{names}: {first.found}") for first, names in firsts] or [facts[0]]
