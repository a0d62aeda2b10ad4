"""Checkpoints: sharded, committed or absent (DESIGN contract 4).

manifest.py says what a checkpoint is; writing.py and reading.py move its tensors, shards.py in and out of files,
peers.py between the ranks; finding.py chooses among a run's.
"""

from sgloc.train.checkpoint.finding import (
    checkpoint_folders,
    checkpoint_steps,
    find_checkpoint,
    first_whole,
    is_checkpoint,
    newest_checkpoint,
    use_checkpoint,
)
from sgloc.train.checkpoint.manifest import CheckpointManifest, TensorEntry, read_manifest, step_folder
from sgloc.train.checkpoint.peers import Peers
from sgloc.train.checkpoint.reading import (
    load_tensors,
    read_checkpoint,
    read_tensors,
    refuse_other_tensors,
    spread_tensors,
)
from sgloc.train.checkpoint.writing import Retention, SaveError, Writer, share_out

__all__ = [
    "CheckpointManifest",
    "Peers",
    "Retention",
    "SaveError",
    "TensorEntry",
    "Writer",
    "checkpoint_folders",
    "checkpoint_steps",
    "find_checkpoint",
    "first_whole",
    "is_checkpoint",
    "load_tensors",
    "newest_checkpoint",
    "read_checkpoint",
    "read_manifest",
    "read_tensors",
    "refuse_other_tensors",
    "share_out",
    "spread_tensors",
    "step_folder",
    "use_checkpoint",
]
