"""`sgloc checkpoint` and `sgloc import-tf`: list, verify, show, export and import checkpoints."""

import dataclasses
import logging
import sys
from json import dumps

from sgloc.config import require
from sgloc.errors import ConfigError
from sgloc.faults import MISTAKE, PASSING
from sgloc.program import show
from sgloc.strict_json import finite

logger = logging.getLogger(__name__)

_MOST_POINTS = 10**5


def list_all(run: str, newest: bool = False, finished: bool = False) -> None:
    """List a run's checkpoints, newest first; reads every file to check that each checkpoint is intact.

    Args:
        run: Folder or URL of a run.
        newest: Print only the folder of the newest intact checkpoint; exit code 2 if there is none.
        finished: Print nothing; exit code 0 if the newest intact checkpoint is that of a finished run, 1 if the run can
            be resumed, 2 if it has no checkpoint.
    """
    from sgloc.train.checkpoint.load import lost_best, no_checkpoint, run_around

    whole_run = run_around(run)
    if whole_run is not None:
        raise ConfigError(f"{run} is not a run folder; pass {whole_run}")
    if newest or finished:
        from sgloc.train.checkpoint.load import checkpoint_folders, newest_checkpoint
        from sgloc.train.start import has_finished

        if not checkpoint_folders(run):
            raise no_checkpoint(run)
        if finished:
            sys.exit(0 if has_finished(run) else PASSING)
        folder = newest_checkpoint(run)
        if folder is None:
            raise no_checkpoint(run)
        show(folder)
        return
    from rich.table import Table

    from sgloc.terminal import results
    from sgloc.train.checkpoint.load import HEADINGS, list_checkpoints

    listed = list_checkpoints(run)
    table = Table(*HEADINGS)
    for one in listed:
        table.add_row(*one.cells)
    results().print(table)
    for one in listed:
        for problem in one.problems:
            logger.warning("%s", problem)
    lost = lost_best(run)
    if lost is not None:
        logger.warning("%s", lost)


def verify(checkpoint: str) -> None:
    """Read every file of a checkpoint, or of all checkpoints of a run, and list damaged files; exit code 2 if any.

    Args:
        checkpoint: Folder or URL of a checkpoint, or of a run to verify all its checkpoints.
    """
    from sgloc.train.checkpoint.load import list_checkpoints

    listed = list_checkpoints(checkpoint)
    for one in listed:
        num_files = len(one.manifest.files) if one.manifest else 0
        show(f"{one.folder}: {'damaged' if one.problems else 'intact'}, {num_files} tensor files")
        for problem in one.problems:
            show(f"  {problem}")
    if any(one.problems for one in listed):
        sys.exit(MISTAKE)


def show_one(checkpoint: str, json: bool = False) -> None:
    """Show the contents of a checkpoint: configuration, training state, versions, and tensors with their shapes.

    Args:
        checkpoint: Folder or URL of a checkpoint, or of a run to show its best checkpoint.
        json: Print JSON instead of text and tables.
    """
    from sgloc.train.checkpoint.format import read_manifest
    from sgloc.train.checkpoint.load import use_checkpoint

    folder, manifest = use_checkpoint(checkpoint, read_manifest)
    everything = {"folder": folder, **finite(dataclasses.asdict(manifest))}
    if json:
        show(dumps(everything, indent=1))
        return
    import yaml

    tensors, files = everything.pop("tensors"), everything.pop("files")
    show(yaml.safe_dump(everything, sort_keys=False, allow_unicode=True), end="")
    show("files:")
    for name, (size, sha256) in files.items():
        show(f"  {name}  {size:,} bytes  SHA-256 {sha256}")
    show("tensors:")
    for name, entry in sorted(tensors.items()):
        show(f"  {name}  {entry['dtype']} {entry['shape']}  in {entry['file']}")


def export(checkpoint: str, out: str) -> None:
    """Export a checkpoint's model as one safetensors file, with its configuration and a model card.

    Args:
        checkpoint: Folder or URL of a checkpoint, or of a run to export its best checkpoint.
        out: Folder or URL to write to.
    """
    from sgloc.hub.export import export_model
    from sgloc.terminal import working

    with working("writing the model"):
        folder, num_values = export_model(checkpoint, out)
    show(f"{out}: {num_values:,} parameters from {folder}; load with sgloc.load_pretrained({out!r})")


def import_tf(
    checkpoint: str, out: str, scale: float = 0.0, data: str = "", max_points: int = 0, max_node_points: int = 0
) -> None:
    """Import a checkpoint of the original TensorFlow 1 program; requires pip install 'sgloc[tf]'.

    Args:
        checkpoint: Local folder with vector-N.index, vector-N.data-* and optionally model_config.json.
        out: Folder or URL to write to.
        scale: Standard deviation of the offsets in the checkpoint's data set; the checkpoint does not store it.
        data: Folder or URL of shards of the checkpoint's data set, to read the scale from.
        max_points: Maximum points per drawing; 0 takes it from --data or the original's max_seq_len.
        max_node_points: Maximum points per graph node; 0 takes the original's max_stroke_len, or whole strokes if that
            is not set.
    """
    for name, value in (("max_points", max_points), ("max_node_points", max_node_points)):
        require(0 <= value <= _MOST_POINTS, name, f"from 0 to {_MOST_POINTS:,}", value)
    if (scale != 0) == bool(data):
        raise ConfigError("the original checkpoint does not store its scale; pass either --scale or --data")
    from sgloc.data.manifest import load_manifest
    from sgloc.hub.import_tf import import_tf as run
    from sgloc.terminal import working

    licence = ""
    if data:
        manifest = load_manifest(data)
        scale, max_points, licence = manifest.scale, max_points or manifest.longest_points, manifest.licence
    with working("reading the checkpoint"):
        done = run(checkpoint, out, scale, max_points, licence, max_node_points=max_node_points)
    nodes = f"nodes of at most {done.max_node_points} points" if done.max_node_points else "whole strokes as nodes"
    show(
        f"{out}: {done.num_values:,} parameters from {done.checkpoint}, scale {scale:g}, {nodes}; "
        f"skipped {done.num_left} training-only variables; load with sgloc.load_pretrained({out!r})"
    )
