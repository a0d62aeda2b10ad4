"""Streaming reader and writer of a checkpoint's tensor files, in the safetensors format.

The safetensors library holds a complete file in memory; this module streams it in chunks, hashing them in the same
pass. A file's header must be byte-identical to the one computed from the manifest; it is never parsed, and any
difference counts as damage.
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

# Small enough that the writer thread never holds the GIL for long.
_WRITE_BYTES = 2**22
_READ_BYTES = 2**24
_ALIGNMENT = 8


def header(entries: Mapping[str, TensorEntry]) -> bytes:
    """Return the header of a file with these tensors in this order, as the safetensors library writes it."""
    places, start = {}, 0
    for name, entry in entries.items():
        stop = start + entry.num_bytes
        places[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(places, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _values(tensor: Tensor) -> memoryview:
    """Return a view of the bytes of a contiguous tensor in host memory."""
    array: npt.NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
    return array.data


def write_file(
    storage: Storage, folder: str, name: str, manifest: CheckpointManifest, tensors: Mapping[str, Tensor]
) -> tuple[int, str]:
    """Write a tensor file.

    Args:
        storage: storage of the run's `checkpoints` folder.
        folder: the checkpoint's folder in it.
        name: name of the file.
        manifest: the checkpoint's manifest, which lists the file's tensors.
        tensors: their values by name, contiguous, in host memory.

    Returns:
        Size of the file in bytes, and its SHA-256.

    Raises:
        Exception: any error of the file system.
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
    """Yield the tensors of a file in the order of `CheckpointManifest.entries_of`.

    The file is read once, and is verified only once the iterator is exhausted without an error.

    Raises:
        CheckpointError: if the file is unreachable.
        DamagedCheckpointError: if it does not match the manifest.
    """
    path, entries, (size, sha256) = f"{storage.location}/{name}", manifest.entries_of(name), manifest.files[name]
    beginning = header(entries)
    with storage.reading(name):
        found = storage.size(name)
    if found not in (size, None):
        raise DamagedCheckpointError(f"{path} is damaged: {found} bytes, not {size}")
    if size != len(beginning) + sum(entry.num_bytes for entry in entries.values()):
        raise DamagedCheckpointError(f"{path} is damaged: its size of {size} bytes does not match its tensors")
    content = _Content(storage, name, size)
    stream = io.BufferedReader(content, _READ_BYTES)
    if stream.read(len(beginning)) != beginning:
        raise DamagedCheckpointError(f"{path} is damaged: its header does not match its tensors")
    for tensor, entry in entries.items():
        values = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
        stream.readinto(_values(values))
        yield tensor, values
    if content.digest.hexdigest() != sha256:
        raise DamagedCheckpointError(f"{path} is damaged: its SHA-256 is {content.digest.hexdigest()}, not {sha256}")


class _Content(io.RawIOBase):
    """A raw stream that fetches each byte of a file once, in order, and hashes it."""

    def __init__(self, storage: Storage, name: str, size: int) -> None:
        self.storage, self.name, self.size = storage, name, size
        self.position, self.digest = 0, hashlib.sha256()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, target: Any) -> int:
        """Read the next bytes into the start of a buffer, and return their number."""
        stop = min(self.position + len(target), self.position + _READ_BYTES, self.size)
        with self.storage.reading(self.name):
            content = self.storage.read(self.name, self.position, stop)
        target[: len(content)] = content
        self.digest.update(content)
        self.position = stop
        return len(content)
