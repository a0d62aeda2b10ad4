"""A checkpoint's files of tensors, in the safetensors format, written and read as streams.

The safetensors library wants a whole file in memory; here it passes once, in chunks, on its way being hashed. A header
that is not to the byte what the manifest's tensors ask for is damage: nothing in it is believed.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgloc.errors import DamagedCheckpointError
from sgloc.failpoint import failpoint
from sgloc.storage import Storage
from sgloc.train.checkpoint.format import DTYPES, CheckpointManifest, TensorEntry

# Small enough that a thread which writes never holds Python's lock for long.
_WRITE_BYTES = 2**22
_READ_BYTES = 2**24
_ALIGNMENT = 8


def header(entries: Mapping[str, TensorEntry]) -> bytes:
    """The beginning of a file that holds these tensors in this order, as the safetensors library writes it."""
    places, start = {}, 0
    for name, entry in entries.items():
        stop = start + entry.num_bytes
        places[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(places, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _values(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor in host memory, not copied."""
    array: npt.NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
    return array.data


def write_file(
    storage: Storage, folder: str, name: str, manifest: CheckpointManifest, tensors: Mapping[str, Tensor]
) -> tuple[int, str]:
    """Write a file.

    Args:
        storage: the folder of checkpoints.
        folder: of the checkpoint, in it.
        name: of the file.
        manifest: of the checkpoint, which says which tensors the file holds.
        tensors: their values, contiguous, in host memory.

    Returns:
        Its size in bytes and SHA-256.

    Raises:
        Exception: what the file system raises.
    """
    entries = manifest.entries_of(name)
    beginning, digest = header(entries), hashlib.sha256()
    num_bytes = sum(entry.num_bytes for entry in entries.values())

    def chunks() -> Iterator[bytes | memoryview]:
        digest.update(beginning)
        yield beginning
        written, half = 0, False
        for tensor in entries:
            values = _values(tensors[tensor])
            for start in range(0, len(values), _WRITE_BYTES):
                chunk = values[start : start + _WRITE_BYTES]
                digest.update(chunk)
                yield chunk
                written += len(chunk)
                if not half and written >= num_bytes / 2:
                    half = True
                    failpoint("checkpoint.half", manifest.step)

    storage.write(f"{folder}/{name}", chunks())
    return len(beginning) + num_bytes, digest.hexdigest()


def read_file(storage: Storage, name: str, manifest: CheckpointManifest) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file, one after the other, in the order of `CheckpointManifest.entries_of`. It is read once, and
    whole only if this comes to its end without an error.

    Raises:
        CheckpointError: if the file cannot be reached.
        DamagedCheckpointError: if it is not what the manifest says.
    """
    path, entries, (size, sha256) = f"{storage.location}/{name}", manifest.entries_of(name), manifest.files[name]
    beginning = header(entries)
    with storage.reading(name):
        found = storage.size(name)
    if found not in (size, None):
        raise DamagedCheckpointError(f"{path} is damaged: {found} bytes, not {size}")
    if size != len(beginning) + sum(entry.num_bytes for entry in entries.values()):
        raise DamagedCheckpointError(f"{path} is damaged: its {size} bytes are not those of its tensors")
    content = _Content(storage, name, size)
    stream = io.BufferedReader(content, _READ_BYTES)
    if stream.read(len(beginning)) != beginning:
        raise DamagedCheckpointError(f"{path} is damaged: its header is not that of its tensors")
    for tensor, entry in entries.items():
        values = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
        stream.readinto(_values(values))
        yield tensor, values
    if content.digest.hexdigest() != sha256:
        raise DamagedCheckpointError(f"{path} is damaged: its SHA-256 is {content.digest.hexdigest()}, not {sha256}")


class _Content(io.RawIOBase):
    """A file's bytes in order, each fetched once, and their digest."""

    def __init__(self, storage: Storage, name: str, size: int) -> None:
        self.storage, self.name, self.size = storage, name, size
        self.position, self.digest = 0, hashlib.sha256()

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill the beginning of a buffer with the next bytes, and say how many they are."""
        stop = min(self.position + len(target), self.position + _READ_BYTES, self.size)
        with self.storage.reading(self.name):
            content = self.storage.read(self.name, self.position, stop)
        target[: len(content)] = content
        self.digest.update(content)
        self.position = stop
        return len(content)
