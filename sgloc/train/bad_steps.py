"""Steps whose loss or gradient is not finite: skipped by all ranks, a few times, and written down."""

import fsspec.core
import numpy as np
import numpy.typing as npt

from sgloc import dist
from sgloc.data.threads import Patience
from sgloc.strict_json import to_json
from sgloc.train.loggers.terminal import tell

FILE_NAME = "bad-steps.ndjson"


def write_bad_step(
    run_dir: str, step: int, loss: float, gradient_norm: float, key_id: npt.NDArray[np.uint64], patience: float
) -> None:
    """Append a line a rank to the run's bad-steps.ndjson. All ranks must call it together.

    Args:
        run_dir: folder or URL of the run.
        step: that was skipped.
        loss: of this rank's share of the batch, in nats; a rank whose loss is finite has no part in it.
        gradient_norm: of the whole gradient.
        key_id: uint64 [B], the sketches of this rank's share.
        patience: seconds that a store may take for it.

    A disk that is full does not stop the run: the lines then go to standard error.
    """
    line = {"step": step, "rank": None, "loss": loss, "gradient_norm": gradient_norm, "key_ids": key_id.tolist()}
    lines = dist.gather_to_rank_0(line)

    def append() -> None:
        file_system, root = fsspec.core.url_to_fs(run_dir)
        path = f"{root}/{FILE_NAME}"
        # JSON has no word for what is not finite: it is spelled out.
        text = "".join(to_json({**line, "rank": rank, **_spelled(line)}) + "\n" for rank, line in enumerate(lines))

        def write() -> None:
            before = file_system.cat_file(path) if file_system.exists(path) else b""
            file_system.pipe_file(path, before + text.encode())

        try:
            Patience(patience, f"the store of {run_dir}")(write)
        except Exception as error:  # A store's library may raise anything.
            tell(f"{path} cannot be written ({error}), which would say:\n{text.rstrip()}")

    dist.on_rank_0(append)


def _spelled(line: dict[str, object]) -> dict[str, object]:
    return {
        name: value if np.isfinite(value) else str(value) for name, value in line.items() if isinstance(value, float)
    }
