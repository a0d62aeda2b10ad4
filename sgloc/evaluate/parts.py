"""The arrays of each batch of an evaluation, a file a batch: one rank writes it, and every rank reads it once.

An evaluation that goes on where it was stopped reads the files that it finds once more, to see that they are whole.
Memory holds the arrays that all ranks share, and the rest of two thousand sketches.
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
# Sketches whose parts are in memory at the same time.
_TOGETHER = 2048


class Parts:
    """The files of an evaluation.

    Args:
        storage: of the evaluation's folder.
        count: sketches, in all batches.
        batch_size: sketches of a batch, but for the last one.
        rank, world_size: of this process; part i is rank i % world_size's.

    Attributes:
        rows: the numbers of each batch's sketches, int64 [n].
        own: numbers of this rank's batches.
        shared: the arrays that all ranks need of all sketches, filled as parts are read and written.
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
        """This rank's batches that are not there, or not whole."""
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
            DataError: if one is damaged or missing.
        """
        for number in range(len(self.rows)):
            if number not in self.own:
                self._share(number, self._whole(number))

    def own_groups(self) -> Iterator[Arrays]:
        """This rank's batches, some at a time, put together; `row` are the numbers of their sketches.

        Raises:
            DataError: if one is damaged or missing.
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
            raise DataError(f"{self._storage.location}/{_name(number)} is damaged; remove it and start again")
        return arrays

    def _read(self, number: int) -> Arrays | None:
        """The arrays of a batch; None where the file was cut short, or is of something else."""
        with self._storage.reading(_name(number)):
            content = self._storage.content(_name(number))
        try:
            arrays: Arrays = safetensors.numpy.load(content)
        except (SafetensorError, ValueError, KeyError):
            return None
        is_whole = {len(array) for array in arrays.values()} == {len(self.rows[number])}
        return arrays if is_whole else None


def join(parts: Sequence[Arrays]) -> Arrays:
    """Arrays of the same names, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}.safetensors"
