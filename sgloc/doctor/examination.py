"""What all checks share: who takes part, how facts come together, and how long a check may take."""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

from sgloc import dist
from sgloc.doctor.finding import Finding
from sgloc.errors import SglocError
from sgloc.faults import as_told

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
        give_up: ends the process, after reporting which check took too long.
        findings: so far, the same on all ranks.
    """

    rank: int
    hosts: Sequence[str]
    timeout: float
    give_up: Callable[[str], NoReturn]
    findings: list[Finding] = field(default_factory=list)

    def gather(self, check: str, measure: Callable[[], Value], advice: str) -> dict[int, Value] | None:
        """Have every rank measure something; what keeps a rank from it becomes a problem. All ranks must call it
        together.

        Args:
            check: its name.
            measure: what each rank does.
            advice: what to do where that fails.

        Returns:
            What each rank measured, by rank; None if it failed on any.

        Raises:
            RuntimeError: if another rank is gone, or does not answer.
        """
        value, sentence = None, None
        try:
            with timeout(self.timeout, lambda: self.give_up(check)):
                value = measure()
        except Exception as error:
            if isinstance(error, RuntimeError) and (dist.is_lost_peer(error) or dist.is_timeout(error)):
                # Nothing can be gathered any more.
                raise
            # A fault, too, must not leave the others waiting.
            is_known = isinstance(error, SglocError | OSError | RuntimeError)
            sentence = " ".join(str(error if is_known else as_told(error)).split())
        every = dict(enumerate(dist.Group().gather((value, sentence))))
        if self.refuse(check, {rank: error for rank, (_, error) in every.items() if error is not None}, advice):
            return None
        return {rank: value for rank, (value, _) in every.items()}  # type: ignore[misc]

    def refuse(self, check: str, errors: Mapping[int, str], advice: str) -> bool:
        """Add a problem for each thing that is wrong with some ranks; whether there was any."""
        by_error: dict[str, list[int]] = {}
        for rank, error in errors.items():
            by_error.setdefault(error, []).append(rank)
        self.findings += [
            Finding(check, "problem", f"{self.names(who)}: {error}", advice) for error, who in by_error.items()
        ]
        return bool(errors)

    def names(self, ranks: Iterable[int]) -> str:
        """Ranks with their machines, the first few of them."""
        listed = list(ranks)
        named = ", ".join(f"rank {rank} ({self.hosts[rank]})" for rank in listed[:_NUM_NAMED])
        more = len(listed) - _NUM_NAMED
        return named + (f" and {more} more" if more > 0 else "")

    def on_each_host(self) -> dict[str, list[int]]:
        """The ranks of each machine."""
        found: dict[str, list[int]] = {}
        for rank, host in enumerate(self.hosts):
            found.setdefault(host, []).append(rank)
        return found


@contextlib.contextmanager
def timeout(seconds: float, expired: Callable[[], NoReturn]) -> Iterator[None]:
    """Limit the time of what is done inside: what hangs in a driver or a file system cannot be interrupted.

    Args:
        seconds: that it may take.
        expired: called by another thread when it took longer.
    """
    timer = threading.Timer(seconds, expired)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def outliers(values: Mapping[int, Value]) -> tuple[Value, dict[int, Value]]:
    """What most ranks have, the lowest rank's where there is no majority; and what the others have."""
    counts = Counter(values.values())
    common = max(counts, key=lambda value: counts[value])
    return common, {rank: value for rank, value in values.items() if value != common}


def end_process() -> NoReturn:
    """End at once, whatever hangs."""
    os._exit(1)
