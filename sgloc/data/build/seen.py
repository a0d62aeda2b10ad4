"""Finding key_ids that occur twice, exactly and in bounded memory."""

import tempfile

import numpy as np
import numpy.typing as npt

RUN_SIZE = 2**20


class SeenKeys:
    """A set of key_ids. Most of it lies sorted in temporary files that the system may keep in memory or not.

    Args:
        run_size: key_ids that are kept in memory before they are sorted into a file.
    """

    def __init__(self, run_size: int = RUN_SIZE) -> None:
        self._run_size = run_size
        self._recent: set[int] = set()
        self._runs: list[npt.NDArray[np.uint64]] = []

    def add(self, key_ids: list[int]) -> list[bool]:
        """Add key_ids below 2**64.

        Returns:
            Of each, whether it is new: neither added before nor further ahead in the list.
        """
        keys = np.array(key_ids, dtype=np.uint64)
        seen = np.zeros(len(keys), dtype=np.bool_)
        for run in self._runs:
            places = np.searchsorted(run, keys)
            seen |= run[np.minimum(places, len(run) - 1)] == keys
        recent = self._recent
        is_new = []
        for key_id, in_run in zip(key_ids, seen.tolist(), strict=True):
            new = not in_run and key_id not in recent
            if new:
                recent.add(key_id)
            is_new.append(new)
        if len(recent) >= self._run_size:
            self._write_run()
        return is_new

    def _write_run(self) -> None:
        # The mapping keeps the file, which has no name and vanishes with the process.
        with tempfile.TemporaryFile(prefix="sgloc-keys-") as file:
            np.sort(np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))).tofile(file)
            file.flush()
            self._runs.append(np.memmap(file, dtype=np.uint64, mode="r"))
        self._recent.clear()
