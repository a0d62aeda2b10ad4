"""Writing and reading a checkpoint's tensors with torch.distributed.checkpoint, through fsspec."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import fsspec.core
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from fsspec.implementations.local import LocalFileSystem
from torch import Tensor
from torch.distributed.checkpoint import metadata as dcp_metadata
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import _StorageInfo

from sgloc import dist as sgloc_dist
from sgloc.data.safe_pickle import RestrictedUnpickler
from sgloc.errors import CheckpointError, DataError
from sgloc.train.checkpoint.manifest import FILE_NAME, CheckpointManifest, checkpoint_steps, file_digest, step_folder

_METADATA = ".metadata"


def save_checkpoint(
    run_dir: str, manifest: CheckpointManifest, tensors: dict[str, Tensor], *, keep: int, best_step: int | None
) -> None:
    """Commit a checkpoint: it is there whole, or not at all. All ranks must call it.

    Args:
        run_dir: the run's folder or URL.
        manifest: everything but its files.
        tensors: by name, equal on all ranks; each rank writes its share of them.
        keep: how many of the newest complete checkpoints stay.
        best_step: of the checkpoint that stays besides; None when there is none.

    Raises:
        CheckpointError: on every rank, if it cannot be written.
    """
    final = step_folder(run_dir, manifest.step)
    file_system, final_root = fsspec.core.url_to_fs(final)
    temporary_root = f"{final_root}.tmp"

    def clear() -> None:
        with _writing(final):
            folder = final_root.rsplit("/", 1)[0]
            # Of saves that a kill cut short; no other run writes here.
            unfinished = file_system.glob(f"{folder}/step-*.tmp") if file_system.exists(folder) else []
            for leftover in (*unfinished, final_root):
                _remove(file_system, leftover)
            file_system.makedirs(temporary_root)

    def commit() -> None:
        files = {name: digest for part in written for name, digest in part.items()}
        text = dataclasses.replace(manifest, files=files).to_json()
        with _writing(final):
            file_system.pipe_file(f"{temporary_root}/{FILE_NAME}", text.encode())
            _move(file_system, temporary_root, final_root)
            for step in checkpoint_steps(run_dir)[keep:]:
                if step != best_step:
                    _remove(file_system, fsspec.core.url_to_fs(step_folder(run_dir, step))[1])

    sgloc_dist.on_rank_0(clear)
    with _writing(final):
        dcp.save(tensors, storage_writer=FsspecWriter(f"{final}.tmp"))
        own_files = _own_files(file_system, temporary_root)
    written = sgloc_dist.gather_to_rank_0(own_files)
    sgloc_dist.on_rank_0(commit)


@contextlib.contextmanager
def _writing(folder: str) -> Iterator[None]:
    """Turn what goes wrong with a disk or a store into a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error}); give a folder that can be used") from error
    except CheckpointException as error:
        raise _of_all_ranks(f"{folder} cannot be written", error) from error


def _of_all_ranks(what: str, error: CheckpointException) -> CheckpointError:
    """What torch raises on all ranks together, with the first of their errors; rank 0 tells it."""
    cause, _ = next(iter(error.failures.values()))
    result = CheckpointError(f"{what} ({cause}); give a folder that can be used")
    result.told = dist.is_initialized() and dist.get_rank() != 0
    return result


def _move(file_system: Any, source: str, target: str) -> None:
    """Give a finished checkpoint its name: in one rename or, where a store has none, file by file, manifest last."""
    if isinstance(file_system, LocalFileSystem):
        file_system.mv(source, target)
        return
    names = (path.rsplit("/", 1)[-1] for path in file_system.ls(source, detail=False))
    for name in sorted(names, key=FILE_NAME.__eq__):
        file_system.mv(f"{source}/{name}", f"{target}/{name}")
    _remove(file_system, source)


def _own_files(file_system: Any, root: str) -> dict[str, tuple[int, str]]:
    """Digests of the files that this rank wrote; rank 0's include the layout of all."""
    rank = dist.get_rank()
    names = [path.rsplit("/", 1)[-1] for path in file_system.ls(root, detail=False)]
    mine = (name for name in names if name.startswith(f"__{rank}_") or (rank == 0 and name == _METADATA))
    return {name: file_digest(file_system, f"{root}/{name}") for name in sorted(mine)}


def _remove(file_system: Any, root: str) -> None:
    """Remove a checkpoint, its manifest first: without it, it is no checkpoint, whenever this is interrupted."""
    if file_system.exists(f"{root}/{FILE_NAME}"):
        file_system.rm(f"{root}/{FILE_NAME}")
    if file_system.exists(root):
        file_system.rm(root, recursive=True)


def _layout_names() -> dict[tuple[str, str], Any]:
    """All that a checkpoint's layout file, a pickle, may name: records of names, sizes and places."""
    # How torch spells an enumeration of memory formats.
    records = (
        "Metadata",
        "TensorStorageMetadata",
        "TensorProperties",
        "ChunkStorageMetadata",
        "MetadataIndex",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    )
    dtypes = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
    return {
        **{("torch.distributed.checkpoint.metadata", name): getattr(dcp_metadata, name) for name in records},
        **{("torch", name): getattr(torch, name) for name in (*dtypes, "Size")},
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _StorageInfo,
        ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    }


class _SafeReader(FsspecReader):
    """Reads the layout file without executing anything from it; the tensors themselves torch reads weights-only (DESIGN
    contract 7)."""

    def __init__(self, folder: str, file_names: set[str]) -> None:
        super().__init__(folder)
        self.folder, self.file_names = folder, file_names

    def read_metadata(self, *args: Any, **kwargs: Any) -> dcp_metadata.Metadata:
        """See `FileSystemReader.read_metadata`."""
        path = f"{self.folder}/{_METADATA}"
        try:
            with fsspec.open(path, "rb") as stream:
                layout = RestrictedUnpickler(stream, _layout_names()).load()
        except DataError as error:
            raise CheckpointError(f"{path} is not a checkpoint's layout: {error}") from error
        except Exception as error:  # A damaged pickle raises whatever it happens to run into.
            raise CheckpointError(f"{path} cannot be read ({error})") from error
        # A pickle need not have called what would have set these.
        parts = (getattr(layout, name, None) for name in ("state_dict_metadata", "storage_data"))
        if not isinstance(layout, dcp_metadata.Metadata) or not all(isinstance(part, dict) for part in parts):
            raise CheckpointError(f"{path} is not a checkpoint's layout")
        for place in layout.storage_data.values():
            if not isinstance(place, _StorageInfo) or place.transform_descriptors:
                raise CheckpointError(f"{path} is not a checkpoint's layout")
            if place.relative_path not in self.file_names:
                raise CheckpointError(
                    f"{path} refers to {place.relative_path!r}, which is not a file of the checkpoint"
                )
        if layout.storage_meta is None:
            layout.storage_meta = dcp_metadata.StorageMeta()
        layout.storage_meta.load_id = self.load_id
        return layout


def refuse_other_tensors(folder: str, manifest: CheckpointManifest, tensors: dict[str, Tensor]) -> None:
    """Refuse a checkpoint that does not hold these tensors.

    Raises:
        CheckpointError: naming the first that is missing, or of another shape.
    """
    stored = _SafeReader(folder, set(manifest.files)).read_metadata().state_dict_metadata
    for name, tensor in tensors.items():
        entry = stored.get(name)
        if not isinstance(entry, dcp_metadata.TensorStorageMetadata):
            raise CheckpointError(f"{folder} is of another model: it has no tensor {name}")
        if entry.size != tensor.shape:
            raise CheckpointError(
                f"{folder} is of another model: its {name} is {list(entry.size)}, not {list(tensor.shape)}"
            )


def load_tensors(folder: str, manifest: CheckpointManifest, tensors: dict[str, Tensor]) -> None:
    """Read tensors from a checkpoint into those given; with a process group, all ranks must call it.

    Args:
        folder: the checkpoint's.
        manifest: its manifest.
        tensors: which to read, by name, and where to, as `refuse_other_tensors` let pass. The checkpoint may hold more.

    Raises:
        CheckpointError: if they cannot be read.
    """
    reader = _SafeReader(folder, set(manifest.files))
    with warnings.catch_warnings():
        # Loading in one process without a group is what `sgloc generate` wants.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            dcp.load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
        except CheckpointException as error:
            raise _of_all_ranks(f"{folder} cannot be read", error) from error
