"""Checkpoints: in files by rank, committed or absent (DESIGN contract 4).

format.py says what a checkpoint is, safetensors_io.py moves its tensors in and out of files; manager.py decides what is
saved when, writer.py commits it; load.py finds, verifies and reads.
"""

from sgloc.train.checkpoint.format import CheckpointManifest, TensorEntry, read_manifest, step_folder
from sgloc.train.checkpoint.load import (
    checkpoint_folders,
    checkpoint_steps,
    first_whole,
    is_checkpoint,
    load_tensors,
    newest_checkpoint,
    put_weights,
    read_checkpoint,
    read_tensors,
    read_weights,
    refuse_other_tensors,
    spread_tensors,
    use_checkpoint,
)
from sgloc.train.checkpoint.writer import Retention, SaveError, Writer, share_out

__all__ = [
    "CheckpointManifest",
    "Retention",
    "SaveError",
    "TensorEntry",
    "Writer",
    "checkpoint_folders",
    "checkpoint_steps",
    "first_whole",
    "is_checkpoint",
    "load_tensors",
    "newest_checkpoint",
    "put_weights",
    "read_checkpoint",
    "read_manifest",
    "read_tensors",
    "read_weights",
    "refuse_other_tensors",
    "share_out",
    "spread_tensors",
    "step_folder",
    "use_checkpoint",
]
