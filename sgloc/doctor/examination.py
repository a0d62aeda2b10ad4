"""What all checks share: who takes part, how facts come together, and how long a check may take."""

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

# Ranks that are named where many are alike.
_NUM_NAMED = 4

Value = TypeVar("Value")


@dataclass
class Examination:
    """Checks are made by all ranks together, and every rank learns what all of them found.

    Attributes:
        rank: this process.
        hosts: the machine of each rank.
        timeout: seconds that one check of one rank may take.
        show: shows findings.
        findings: so far, the same on all ranks.
    """

    rank: int
    hosts: Sequence[str]
    timeout: float
    show: Callable[[list[Finding]], None]
    findings: list[Finding] = field(default_factory=list)

    def check(
        self, name: str, look: Callable[[], Value], advice: str, judge: "Judge[Value] | None" = None
    ) -> dict[int, Value] | None:
        """Have every rank look at something, and add what is found. All ranks must call it together.

        Args:
            name: of the check.
            look: what each rank does; what keeps a rank from it becomes a problem.
            advice: what to do about such a problem.
            judge: makes findings of what the ranks saw; None: there are none to make.

        Returns:
            What each rank saw, by rank; None if there is a problem.

        Raises:
            RuntimeError: if another rank is gone, or does not answer.
        """
        value, reason = None, None
        try:
            with self.limited(name):
                value = look()
        except Exception as error:
            if dist.lost_rank(error):
                # Nothing can be gathered any more.
                raise
            # A fault, too, must not leave the others waiting.
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
        """Limit the time of a check. What hangs in a driver or a file system cannot be interrupted, so the process ends
        after it shows the findings so far.

        Args:
            check: its name.
            patience: seconds that it may take beyond the timeout.
        """
        timer = threading.Timer(self.timeout + patience, self._give_up, [check])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self, check: str) -> None:
        found = f"rank {self.rank} ({socket.gethostname()}) has not ended this check after {self.timeout:.0f} s"
        if self.rank == 0:
            advice = "see what it waits for; --timeout gives it longer"
            self.show([*self.findings, Finding(check, "problem", found, advice)])
            sys.stdout.flush()
        else:
            logger.error("%s: %s", check, found)
        os._exit(1)

    def names(self, ranks: Iterable[int]) -> str:
        """Ranks with their machines, the first few of them."""
        listed = list(ranks)
        named = ", ".join(f"rank {rank} ({self.hosts[rank]})" for rank in listed[:_NUM_NAMED])
        more = len(listed) - _NUM_NAMED
        return named + (f" and {more} more" if more > 0 else "")

    def differences(self, values: Mapping[int, str]) -> list[str]:
        """A sentence for each value, in words, that some ranks have and most do not; where there is no majority, the
        others are compared with the lowest rank."""
        groups = by_value(values)
        common = max(groups, key=lambda value: len(groups[value]))
        others = ((value, who) for value, who in groups.items() if value != common)
        return [f"{self.names(who)} has {value}, others have {common}" for value, who in others]

    def on_each_host(self) -> dict[str, list[int]]:
        """The ranks of each machine."""
        return by_value(dict(enumerate(self.hosts)))


Judge = Callable[[Mapping[int, Value], Examination], Iterable[Finding]]
"""Makes findings of what each rank saw."""


def by_value(values: Mapping[int, Value]) -> dict[Value, list[int]]:
    """The ranks that have each value, in the order in which the values come up."""
    groups: dict[Value, list[int]] = {}
    for rank, value in values.items():
        groups.setdefault(value, []).append(rank)
    return groups


def merged(facts: Mapping[int, Finding], ranks: Examination) -> list[Finding]:
    """Combine the ranks' own findings: the lowest rank's where all is well, else one for each advice, which names the
    ranks that need it."""
    troubles = by_value({rank: (one.status, one.advice) for rank, one in facts.items() if one.status != "ok"})
    firsts = [(facts[who[0]], ranks.names(who)) for who in troubles.values()]
    return [replace(first, found=f"{names}: {first.found}") for first, names in firsts] or [facts[0]]
