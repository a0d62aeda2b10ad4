"""What an evaluation keeps of each batch, a file each: one rank writes it, and every rank reads it once.

An evaluation that goes on where it was stopped reads what it finds once more, to see that it is whole. Memory holds the
gallery, which `retrieval_ranks` needs, and the codes of two thousand sketches besides.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from sgloc.errors import DataError
from sgloc.evaluate.measure import Arrays
from sgloc.evaluate.tasks import EvaluationTask
from sgloc.storage import Storage, describe, patiently

FOLDER = "parts"
# Sketches whose parts are in memory at the same time.
_TOGETHER = 2048


class Parts:
    """The files of an evaluation.

    Args:
        storage: of the evaluation's folder.
        count: sketches, in all batches.
        batch_size: sketches of a batch, but for the last one.
        code_width: Z, of the codes.
        tasks: what was measured of each batch.
        rank, world_size: of this process; part i is rank i % world_size's.

    Attributes:
        num_parts: batches.
        own: numbers of this rank's batches.
    """

    def __init__(
        self,
        storage: Storage,
        count: int,
        batch_size: int,
        code_width: int,
        tasks: Sequence[EvaluationTask],
        rank: int,
        world_size: int,
    ) -> None:
        self._storage, self._count, self._batch_size, self._code_width = storage, count, batch_size, code_width
        self._codes = ["gallery", *(f"{task.name}.{name}" for task in tasks for name in ("query", "given"))]
        self.num_parts = -(-count // batch_size)
        self.own = range(rank, self.num_parts, world_size)

    def rows(self, number: int) -> slice:
        """Which sketches a batch has."""
        start = number * self._batch_size
        return slice(start, min(start + self._batch_size, self._count))

    def empty_gallery(self) -> npt.NDArray[np.float32]:
        """Room for the codes of all sketches, [count, Z]."""
        return np.empty((self._count, self._code_width), dtype=np.float32)

    def write(self, number: int, arrays: Arrays) -> None:
        """Write what a batch gave.

        Raises:
            DataError: if the folder cannot be written.
        """
        write(self._storage, _name(number), safetensors.numpy.save(arrays))

    def found(self, gallery: npt.NDArray[np.float32]) -> list[int]:
        """Take the codes of this rank's batches that are there, and give the numbers of those that are not."""
        there = self._storage.sizes(FOLDER)
        missing = []
        for number in self.own:
            arrays = self._read(number) if there.get(_name(number).rpartition("/")[2]) else None
            if arrays is None:
                missing.append(number)
            else:
                gallery[self.rows(number)] = arrays["gallery"]
        return missing

    def take_others(self, gallery: npt.NDArray[np.float32]) -> None:
        """Take the codes of the other ranks' batches.

        Raises:
            DataError: if one is damaged or missing.
        """
        for number in range(self.num_parts):
            if number not in self.own:
                gallery[self.rows(number)] = self._whole(number)["gallery"]

    def own_groups(self) -> Iterator[Arrays]:
        """This rank's batches, some at a time, put together; `row` are the numbers of their sketches.

        Raises:
            DataError: if one is damaged or missing.
        """
        num_batches = max(1, _TOGETHER // self._batch_size)
        for start in range(0, len(self.own), num_batches):
            numbers = self.own[start : start + num_batches]
            group = [
                {**self._whole(number), "row": np.arange(self.rows(number).start, self.rows(number).stop)}
                for number in numbers
            ]
            yield join(group)

    def _whole(self, number: int) -> Arrays:
        arrays = self._read(number)
        if arrays is None:
            raise DataError(f"{self._storage.location}/{_name(number)} is damaged; remove it and start again")
        return arrays

    def _read(self, number: int) -> Arrays | None:
        """What a batch gave; None where its file was cut short, or is of something else."""
        with self._storage.reading(_name(number)):
            content = self._storage.content(_name(number))
        try:
            arrays = safetensors.numpy.load(content)
        except (SafetensorError, ValueError, KeyError):
            return None
        rows = self.rows(number)
        shape = rows.stop - rows.start, self._code_width
        return arrays if all(name in arrays and arrays[name].shape == shape for name in self._codes) else None


def join(parts: list[Arrays]) -> Arrays:
    """Arrays of the same names, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def in_order(parts: list[Arrays]) -> Mapping[str, npt.NDArray[np.generic]]:
    """Arrays of the same names, by the number of the sketch, `row`."""
    joined = join(parts)
    order = np.argsort(joined["row"])
    return {name: array[order] for name, array in joined.items()}


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}.safetensors"


def write(storage: Storage, name: str, content: bytes) -> None:
    """Write a file of an evaluation.

    Raises:
        DataError: if the folder cannot be written.
    """
    try:
        patiently(lambda: storage.write(name, [content]))
    except OSError as error:
        raise unwritable(storage, error) from error


def unwritable(storage: Storage, error: OSError) -> DataError:
    """What to say of a folder that cannot be written."""
    return DataError(f"cannot write to {storage.location} ({describe(error)}); give an --out that can be written")
