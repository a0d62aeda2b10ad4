"""Reading checkpoints: every file once, and never as anything but numbers (DESIGN contract 7)."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from sgloc.errors import CheckpointError
from sgloc.storage import Storage
from sgloc.train.checkpoint.manifest import DTYPES, CheckpointManifest, TensorEntry, read_manifest
from sgloc.train.checkpoint.peers import Peers
from sgloc.train.checkpoint.shards import read_shard


def read_tensors(folder: str, manifest: CheckpointManifest) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a checkpoint, one after the other; it is whole only if this comes to its end without an error.

    Raises:
        CheckpointError: if a file cannot be reached.
        DamagedCheckpointError: if a file is not what the manifest says; it names the file.
    """
    storage = Storage(folder)
    for file in sorted(manifest.files):
        yield from read_shard(storage, file, manifest)


def read_checkpoint(folder: str, *, verify: bool = True) -> CheckpointManifest:
    """Read a checkpoint's manifest and, unless told otherwise, check every file against it.

    Raises:
        CheckpointError: if it is not there, not a checkpoint, of another format version, or cannot be reached.
        DamagedCheckpointError: if it is not whole; it names the file.
    """
    manifest = read_manifest(folder)
    if verify:
        for _ in read_tensors(folder, manifest):
            pass
    return manifest


def refuse_other_tensors(folder: str, manifest: CheckpointManifest, layout: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint that does not hold these tensors; it may hold more.

    Raises:
        CheckpointError: naming the first that is missing, or of another type or shape.
    """
    for name, tensor in layout.items():
        entry, wanted = manifest.tensors.get(name), TensorEntry.of(tensor, "")
        if entry is None:
            raise CheckpointError(f"{folder} is of another model: it has no tensor {name}")
        if (entry.dtype, entry.shape) != (wanted.dtype, wanted.shape):
            raise CheckpointError(
                f"{folder} is of another model: "
                f"its {name} is {entry.dtype} {entry.shape}, not {wanted.dtype} {wanted.shape}"
            )


def load_tensors(folder: str, manifest: CheckpointManifest, layout: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors of a checkpoint that are wanted; all of it is read and checked.

    Raises:
        CheckpointError: as `refuse_other_tensors` and `read_tensors` do.
    """
    refuse_other_tensors(folder, manifest, layout)
    return {name: tensor for name, tensor in read_tensors(folder, manifest) if name in layout}


def spread_tensors(
    folder: str, manifest: CheckpointManifest, layout: Mapping[str, Tensor], peers: Peers
) -> Iterator[tuple[str, Tensor]]:
    """The same, one after the other on every rank; rank 0 reads. All ranks must go through them together, to the end.

    Raises:
        CheckpointError: on every rank, as `load_tensors` does.
    """
    peers.from_rank_0(lambda: refuse_other_tensors(folder, manifest, layout))
    source = read_tensors(folder, manifest) if peers.rank == 0 else iter(())
    for file in sorted(manifest.files):
        for name in manifest.names_of(file):
            values: list[Tensor] = []
            # What is not wanted is read as well.
            peers.from_rank_0(lambda values=values: values.append(next(source)[1]))  # type: ignore[misc]
            if name in layout:
                entry = manifest.tensors[name]
                tensor = values[0] if values else torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
                peers.broadcast(tensor.reshape(-1).view(torch.uint8))
                yield name, tensor
    # Only now the last file's checksum is known.
    peers.from_rank_0(lambda: next(source, None))
