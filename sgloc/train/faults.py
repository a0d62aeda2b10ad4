"""Run faults other than checkpoint failures: stop signals, mismatched ranks, non-finite steps (DESIGN contract 5)."""

import contextlib
import logging
import math
import signal
from collections.abc import Iterator
from dataclasses import asdict
from types import FrameType

import numpy as np
import numpy.typing as npt

from sgloc.config import RunConfig, flat
from sgloc.data.manifest import Manifest
from sgloc.dist import Group
from sgloc.errors import ConfigError
from sgloc.signals import wanted_signals
from sgloc.storage import Storage
from sgloc.strict_json import to_json
from sgloc.threads import Patience

logger = logging.getLogger(__name__)

BAD_STEPS = "bad-steps.ndjson"
# Paths may differ between machines; the manifest's identity shows whether the shards at data.path are the same.
_LOCAL_OPTIONS = frozenset({"data.path", "data.cache", "train.init_from"})


class StopFlag:
    """A flag that a stop signal to this process sets."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether this process has received a stop signal."""
        return self._is_set

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self._is_set and number == signal.SIGINT:
            # A second Ctrl-C: the user does not want to wait for the step to end.
            raise KeyboardInterrupt
        self._is_set = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Let TERM, INT, HUP, USR1 and USR2 only set the flag inside the block; under nohup, HUP stays ignored."""
        before = {number: signal.signal(number, self._set) for number in wanted_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def refuse_other_ranks(config: RunConfig, manifest: Manifest, versions: dict[str, str], group: Group) -> None:
    """Refuse to start if a rank has other options, shards or software versions than rank 0. Collective.

    Args:
        config: configuration of this rank.
        manifest: manifest of the shards that this rank sees.
        versions: software versions of this rank.
        group: group of the ranks.

    Raises:
        ConfigError: on every rank; names the first rank that differs from rank 0, and the first difference.
    """
    options = {name: value for name, value in flat(asdict(config)).items() if name not in _LOCAL_OPTIONS}
    # Readable properties come first, so that a difference is reported as one of them; `identity` alone is conclusive.
    sizes = {name: {"num_sketches": split.num_sketches} for name, split in manifest.splits.items()}
    shards = {"categories": len(manifest.categories), **sizes, "scale": manifest.scale, "identity": manifest.identity}
    mine = {**options, **flat({"versions": versions, "manifest": shards})}
    every_rank = group.gather(mine)
    for rank, theirs in enumerate(every_rank):
        for name in {**every_rank[0], **theirs}:
            if theirs.get(name) != every_rank[0].get(name):
                error = ConfigError(
                    f"rank {rank} has {name} = {theirs.get(name)}, rank 0 has {every_rank[0].get(name)}; "
                    "start all ranks with the same options, shards and software"
                )
                raise group.told_once(error)


def write_bad_step(
    run_dir: str, step: int, loss: float, gradient_norm: float, key_id: npt.NDArray[np.uint64], group: Group
) -> None:
    """Append one line per rank to the run's bad-steps.ndjson. Collective.

    A failed write (a full disk, say) does not stop the run: the lines are logged instead.

    Args:
        run_dir: folder or URL of the run.
        step: the skipped step.
        loss: loss of this rank's share of the batch, in nats; a finite loss clears this rank's sketches.
        gradient_norm: norm of the global gradient.
        key_id: uint64 [B], the sketches in this rank's share.
        group: group of the ranks; the write may take up to half of its timeout.
    """
    # JSON cannot express non-finite numbers, so they are written as strings.
    numbers = {"loss": _spelled(loss), "gradient_norm": _spelled(gradient_norm), "key_ids": key_id.tolist()}
    lines = group.gather({"step": step, "rank": group.rank, **numbers})
    if group.rank != 0:
        return
    text = "".join(to_json(line) + "\n" for line in lines)

    def append() -> None:
        storage = Storage(run_dir)
        before = storage.content(BAD_STEPS) if storage.exists(BAD_STEPS) else b""
        storage.write(BAD_STEPS, [before + text.encode()])

    try:
        Patience(group.timeout / 2, f"the store of {run_dir}")(append)
    except Exception as error:  # Storage libraries raise exceptions of any type.
        logger.warning("could not write %s/%s (%s); its lines are:\n%s", run_dir, BAD_STEPS, error, text.rstrip())


def _spelled(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)
