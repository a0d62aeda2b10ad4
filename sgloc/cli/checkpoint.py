"""`sgloc checkpoint` and `sgloc import-tf`: what is done with checkpoints that are there."""

import dataclasses
import json
import logging
import sys
from dataclasses import dataclass

from sgloc.cli.shared import CheckpointOptions, JsonOptions, OutOptions, RunOptions
from sgloc.config import Options, option
from sgloc.errors import ConfigError
from sgloc.faults import MISTAKE, PASSING
from sgloc.program import show
from sgloc.strict_json import finite

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListOptions:
    """What to print in place of a table."""

    newest: bool = False
    """Print the folder of the newest checkpoint that is whole, and nothing else; exit code 2 if there is none."""
    finished: bool = False
    """Print nothing; exit code 0 if the run has finished by its newest whole checkpoint, 1 if it can go on, 2 if it has
    no checkpoint."""


def list_all(of: RunOptions, options: ListOptions) -> None:
    """Show a table of a run's checkpoints, newest first; every file is read to tell whether they are whole."""
    from sgloc.train.checkpoint.load import lost_best, no_checkpoint, run_around

    run = run_around(of.run)
    if run is not None:
        raise ConfigError(f"{of.run} is not a run's folder; give {run}")
    if options.newest or options.finished:
        from sgloc.train.checkpoint.load import checkpoint_folders, newest_checkpoint
        from sgloc.train.start import has_finished

        if not checkpoint_folders(of.run):
            raise no_checkpoint(of.run)
        if options.finished:
            sys.exit(0 if has_finished(of.run) else PASSING)
        newest = newest_checkpoint(of.run)
        if newest is None:
            raise no_checkpoint(of.run)
        show(newest)
        return
    from rich.table import Table

    from sgloc.terminal import results
    from sgloc.train.checkpoint.load import HEADINGS, list_checkpoints

    listed = list_checkpoints(of.run)
    table = Table(*HEADINGS)
    for one in listed:
        table.add_row(*one.cells)
    results().print(table)
    for one in listed:
        for problem in one.problems:
            logger.warning("%s", problem)
    lost = lost_best(of.run)
    if lost is not None:
        logger.warning("%s", lost)


def verify(options: CheckpointOptions) -> None:
    """Read every file of a checkpoint, or of all of a run's, and name what is damaged; exit code 2 tells of it."""
    from sgloc.train.checkpoint.load import list_checkpoints

    listed = list_checkpoints(options.checkpoint)
    for one in listed:
        num_files = len(one.manifest.files) if one.manifest else 0
        show(f"{one.folder}: {'damaged' if one.problems else 'whole'}, {num_files} files of tensors")
        for problem in one.problems:
            show(f"  {problem}")
    if any(one.problems for one in listed):
        sys.exit(MISTAKE)


def show_one(options: CheckpointOptions, form: JsonOptions) -> None:
    """Show what a checkpoint holds, or a run's best: configuration, state, versions, tensors with their shapes."""
    from sgloc.train.checkpoint.format import read_manifest
    from sgloc.train.checkpoint.load import use_checkpoint

    folder, manifest = use_checkpoint(options.checkpoint, read_manifest)
    everything = {"folder": folder, **finite(dataclasses.asdict(manifest))}
    if form.json:
        show(json.dumps(everything, indent=1))
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


def export(options: CheckpointOptions, into: OutOptions) -> None:
    """Write a checkpoint's model as one safetensors file with its configuration and a model card."""
    from sgloc.hub.export import export_model

    folder, num_values = export_model(options.checkpoint, into.out)
    show(f"{into.out}: {num_values:,} numbers of {folder}; sgloc.load_pretrained({into.out!r}) gives the model")


@dataclass(frozen=True)
class ImportOptions(Options):
    """A checkpoint of the original program, and what that does not store."""

    checkpoint: str
    """Local folder with vector-N.index, vector-N.data-* and, if it is there, model_config.json."""
    scale: float = 0.0
    """Standard deviation of its data set's offsets, which it does not store."""
    data: str = ""
    """Shards of that data set, whose scale is taken."""
    max_points: int = option(0, at_least=0, at_most=10**5)
    """Of a drawing; 0: as --data or the original's max_seq_len tell."""
    max_node_points: int = option(0, at_least=0, at_most=10**5)
    """Of a graph node; 0: as the original's max_stroke_len tells, or a node is a whole stroke."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.scale != 0) == bool(self.data):
            raise ConfigError("the original does not store its scale; give either --scale or --data")


def import_tf(options: ImportOptions, into: OutOptions) -> None:
    """Make a model of a checkpoint of the original TensorFlow 1 program: pip install 'sgloc[tf]' first."""
    from sgloc.data.manifest import load_manifest
    from sgloc.hub.import_tf import import_tf as run

    scale, longest, licence = options.scale, options.max_points, ""
    if options.data:
        manifest = load_manifest(options.data)
        scale, longest, licence = manifest.scale, longest or manifest.longest_points, manifest.licence
    done = run(options.checkpoint, into.out, scale, longest, licence, max_node_points=options.max_node_points)
    nodes = f"nodes of at most {done.max_node_points} points" if done.max_node_points else "nodes of whole strokes"
    show(
        f"{into.out}: {done.num_values:,} numbers of {done.checkpoint}, scale {scale:g}, {nodes}; {done.num_left} "
        f"variables of its training are left out; sgloc.load_pretrained({into.out!r}) gives the model"
    )
