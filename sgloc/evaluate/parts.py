"""The part files of an evaluation, each holding the arrays of one batch.

One rank writes a part and every rank reads it once. A resumed evaluation reads existing parts once more to check that
they are complete. Memory holds the shared arrays of all sketches and the other arrays of about two thousand sketches.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from sgloc.errors import DataError
from sgloc.evaluate.measure import SHARED, section
from sgloc.evaluate.metric import Arrays
from sgloc.storage import Storage

FOLDER = "parts"
# Number of sketches whose parts are in memory at once.
_TOGETHER = 2048


class Parts:
    """The part files of an evaluation.

    Args:
        storage: storage of the evaluation's folder.
        count: number of sketches in all batches.
        batch_size: sketches per batch; the last batch may be smaller.
        rank: rank of this process.
        world_size: number of processes; part i belongs to rank i % world_size.

    Attributes:
        rows: for each batch, the numbers of its sketches, int64 [n].
        own: numbers of this rank's batches.
        shared: arrays of all sketches that every rank needs, filled as parts are read and written.
    """

    def __init__(self, storage: Storage, count: int, batch_size: int, rank: int, world_size: int) -> None:
        self._storage, self._count, self._batch_size = storage, count, batch_size
        self.rows = np.split(np.arange(count), range(batch_size, count, batch_size))
        self.own = range(rank, len(self.rows), world_size)
        self.shared: Arrays = {}

    def write(self, number: int, arrays: Arrays) -> None:
        """Write the arrays of a batch.

        Raises:
            DataError: if the folder cannot be written.
        """
        self._storage.save({_name(number): safetensors.numpy.save(arrays)})
        self._share(number, arrays)

    def missing(self) -> list[int]:
        """Return the numbers of this rank's batches whose parts are missing or incomplete."""
        there = self._storage.sizes(FOLDER)
        missing = []
        for number in self.own:
            arrays = self._read(number) if there.get(_name(number).rpartition("/")[2]) else None
            if arrays is None:
                missing.append(number)
            else:
                self._share(number, arrays)
        return missing

    def take_others(self) -> None:
        """Read the shared arrays of the other ranks' batches.

        Raises:
            DataError: if a part is damaged or missing.
        """
        for number in range(len(self.rows)):
            if number not in self.own:
                self._share(number, self._whole(number))

    def own_groups(self) -> Iterator[Arrays]:
        """Yield this rank's batches, several concatenated at a time; the added array `row` holds the sketches' numbers.

        Raises:
            DataError: if a part is damaged or missing.
        """
        num_batches = max(1, _TOGETHER // self._batch_size)
        for start in range(0, len(self.own), num_batches):
            numbers = self.own[start : start + num_batches]
            yield join([{**self._whole(number), "row": self.rows[number]} for number in numbers])

    def _share(self, number: int, arrays: Arrays) -> None:
        for name, array in section(SHARED, arrays).items():
            whole = self.shared.setdefault(name, np.empty((self._count, *array.shape[1:]), dtype=array.dtype))
            whole[self.rows[number]] = array

    def _whole(self, number: int) -> Arrays:
        arrays = self._read(number)
        if arrays is None:
            raise DataError(f"{self._storage.location}/{_name(number)} is damaged; remove it and run again")
        return arrays

    def _read(self, number: int) -> Arrays | None:
        """Read the arrays of a batch; return None if the file is truncated or does not hold that batch."""
        with self._storage.reading(_name(number)):
            content = self._storage.content(_name(number))
        try:
            arrays: Arrays = safetensors.numpy.load(content)
        except (SafetensorError, ValueError, KeyError):
            return None
        is_whole = {len(array) for array in arrays.values()} == {len(self.rows[number])}
        return arrays if is_whole else None


def join(parts: Sequence[Arrays]) -> Arrays:
    """Concatenate the arrays of equal names."""
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}.safetensors"
