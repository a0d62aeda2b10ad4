"""Checkpoints: sharded, committed or absent (DESIGN contract 4).

manifest.py says what a checkpoint is and which of a run's are whole; store.py writes and reads the tensors.
"""

from sgloc.train.checkpoint.manifest import CheckpointManifest, find_checkpoint, newest_checkpoint, read_checkpoint
from sgloc.train.checkpoint.store import load_tensors, refuse_other_tensors, save_checkpoint

__all__ = [
    "CheckpointManifest",
    "find_checkpoint",
    "load_tensors",
    "newest_checkpoint",
    "read_checkpoint",
    "refuse_other_tensors",
    "save_checkpoint",
]
