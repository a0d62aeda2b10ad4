"""What can go wrong with a run besides its checkpoints: signals that stop it, ranks that differ, steps that are not
finite (DESIGN contract 5)."""

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
# Places may be named differently on every machine; what stands there is compared.
_LOCAL_OPTIONS = frozenset({"data.path", "data.cache", "train.init_from"})


class StopFlag:
    """Set when this process was asked to stop."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it was."""
        return self._is_set

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self._is_set and number == signal.SIGINT:
            # A second Ctrl-C: somebody does not want to wait for the step to end.
            raise KeyboardInterrupt
        self._is_set = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While inside, TERM, INT, HUP, USR1 and USR2 only set the flag; a HUP that nohup ignores stays ignored."""
        before = {number: signal.signal(number, self._set) for number in wanted_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def refuse_other_ranks(config: RunConfig, manifest: Manifest, versions: dict[str, str], group: Group) -> None:
    """Refuse to start where a rank was given something else. All ranks must call it together.

    Args:
        config: of this rank.
        manifest: of the shards that this rank sees.
        versions: of the programs that this rank runs.
        group: of the ranks.

    Raises:
        ConfigError: on every rank, naming the first rank that differs from rank 0, and in what.
    """
    options = {name: value for name, value in flat(asdict(config)).items() if name not in _LOCAL_OPTIONS}
    # What people understand stands before what tells all sets of shards apart.
    sizes = {name: {"num_sketches": split.num_sketches} for name, split in manifest.splits.items()}
    shards = {"categories": len(manifest.categories), **sizes, "scale": manifest.scale, "identity": manifest.identity}
    mine = {**options, **flat({"versions": versions, "manifest": shards})}
    every_rank = group.gather(mine)
    for rank, theirs in enumerate(every_rank):
        for name in {**every_rank[0], **theirs}:
            if theirs.get(name) != every_rank[0].get(name):
                error = ConfigError(
                    f"rank {rank} has {name} = {theirs.get(name)}, rank 0 has {every_rank[0].get(name)}; "
                    "start all ranks with the same options, shards and programs"
                )
                raise group.told_once(error)


def write_bad_step(
    run_dir: str, step: int, loss: float, gradient_norm: float, key_id: npt.NDArray[np.uint64], group: Group
) -> None:
    """Append a line a rank to the run's bad-steps.ndjson. All ranks must call it together.

    A disk that is full does not stop the run: the lines are then logged.

    Args:
        run_dir: folder or URL of the run.
        step: that was skipped.
        loss: of this rank's share of the batch, in nats; a rank whose loss is finite has no part in it.
        gradient_norm: of the whole gradient.
        key_id: uint64 [B], the sketches of this rank's share.
        group: of the ranks; half of what they wait for each other is the store's.
    """
    # JSON has no word for what is not finite: it is spelled out.
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
    except Exception as error:  # A store's library may raise anything.
        logger.warning("%s/%s cannot be written (%s); its lines are:\n%s", run_dir, BAD_STEPS, error, text.rstrip())


def _spelled(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)
