"""What all checks share: who takes part, how facts come together, and that nothing waits for ever."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

import torch.distributed

from sgloc import dist
from sgloc.doctor.finding import Finding
from sgloc.errors import SglocError
from sgloc.faults import as_told

# Ranks that are named where many are alike.
_NUM_NAMED = 4

Value = TypeVar("Value")


@dataclass
class Examination:
    """Checks are made by all ranks together and judged on rank 0.

    Attributes:
        rank: this process.
        hosts: the machine of each rank.
        timeout: seconds that one check of one rank may take.
        give_up: ends the process, after telling which check took too long.
        findings: so far; empty except on rank 0.
    """

    rank: int
    hosts: Sequence[str]
    timeout: float
    give_up: Callable[[str], NoReturn]
    findings: list[Finding] = field(default_factory=list)

    def gather(self, check: str, measure: Callable[[], Value]) -> tuple[dict[int, Value], dict[int, str]]:
        """What each rank measures, and of the others what kept them from it; both empty except on rank 0. All ranks
        must call it together.

        Raises:
            RuntimeError: if another rank is gone, or does not answer.
        """
        value, sentence = None, None
        try:
            with limited(self.timeout, lambda: self.give_up(check)):
                value = measure()
        except Exception as error:
            if isinstance(error, RuntimeError) and (dist.is_lost_peer(error) or dist.is_timeout(error)):
                # Nothing can be gathered any more.
                raise
            # A fault, too, must not leave the others waiting.
            is_known = isinstance(error, SglocError | OSError | RuntimeError)
            sentence = " ".join(str(error if is_known else as_told(error)).split())
        every = dict(enumerate(dist.gather_to_rank_0((value, sentence))))
        facts = {rank: value for rank, (value, error) in every.items() if error is None}
        return facts, {rank: error for rank, (_, error) in every.items() if error is not None}  # type: ignore[return-value]

    def refuse(self, check: str, errors: Mapping[int, str], advice: str) -> bool:
        """Add a problem for each thing that kept ranks from a check; tells all ranks whether there was any. All ranks
        must call it together."""
        by_error: dict[str, list[int]] = {}
        for rank, error in errors.items():
            by_error.setdefault(error, []).append(rank)
        self.findings += [
            Finding(check, "problem", f"{self.names(who)}: {error}", advice) for error, who in by_error.items()
        ]
        return self.from_rank_0(bool(errors))

    def from_rank_0(self, value: Value) -> Value:
        """Rank 0's value, on all ranks."""
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

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


class limited:  # noqa: N801
    """Inside, a function is called once a time is over: what hangs in a driver or a file system cannot be interrupted.

    Args:
        seconds: that it may take.
        expired: called by another thread when it took longer.
    """

    def __init__(self, seconds: float, expired: Callable[[], NoReturn]) -> None:
        self._timer = threading.Timer(seconds, expired)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def odd_ones(values: Mapping[int, Value]) -> tuple[Value, dict[int, Value]]:
    """What most ranks have, the lowest rank's where there is no majority; and what the others have."""
    counts = Counter(values.values())
    common = max(counts, key=lambda value: counts[value])
    return common, {rank: value for rank, value in values.items() if value != common}


def end_process() -> NoReturn:
    """End at once, whatever hangs."""
    os._exit(1)
