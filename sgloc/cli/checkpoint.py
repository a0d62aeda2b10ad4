"""`sgloc checkpoint`: what is done with checkpoints that are there."""

import json
import sys
from collections.abc import Callable

from sgloc.cli.parsing import fail, nearest, new_parser, parse, say, show
from sgloc.faults import MISTAKE
from sgloc.program import tell


def checkpoint(words: list[str]) -> None:
    """List, verify, show or export checkpoints: `sgloc checkpoint list`, `verify`, `show` or `export`."""
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:<8} {(function.__doc__ or '').splitlines()[0]}" for name, function in _COMMANDS.items()]
        show("\n".join(["usage: sgloc checkpoint <command> [options]", "", *lines]))
        return
    command = words[0]
    if command not in _COMMANDS:
        hint = nearest(command, list(_COMMANDS))
        fail("sgloc checkpoint", f"there is no command {command!r}{hint}; see `sgloc checkpoint --help`")
    _COMMANDS[command](words[1:])


def _list(words: list[str]) -> None:
    """A table of a run's checkpoints, newest first; every file is read to tell whether they are whole."""
    parser = new_parser("checkpoint list", _list)
    parser.add_argument("run", help="folder or URL of a run")
    parser.add_argument(
        "--newest",
        action="store_true",
        help="print the folder of the newest checkpoint that is whole, and nothing else; exit code 1 if there is none",
    )
    parser.add_argument(
        "--finished",
        action="store_true",
        help="print nothing; exit code 0 if the run has finished by its newest whole checkpoint, 1 if it can go on",
    )
    options = parse(parser, words, "run")
    from sgloc.train.checkpoint.load import lost_best, run_around

    run_dir = run_around(options.run)
    if run_dir is not None:
        fail(parser.prog, f"{options.run} is not a run's folder; give {run_dir}")
    if options.finished:
        from sgloc.train.start import has_finished

        _say_where_there_is_none(options.run)
        sys.exit(0 if has_finished(options.run) else 1)
    if options.newest:
        from sgloc.train.checkpoint import newest_checkpoint

        newest = newest_checkpoint(options.run)
        if newest is None:
            _say_where_there_is_none(options.run)
            sys.exit(1)
        show(newest)
        return
    from rich.console import Console
    from rich.table import Table

    from sgloc.train.checkpoint.load import HEADINGS, list_checkpoints

    listed = list_checkpoints(options.run)
    table = Table(*HEADINGS)
    for one in listed:
        table.add_row(*one.cells)
    # Where there is no terminal there is no width to keep to.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160).print(table)
    for one in listed:
        for problem in one.problems:
            say(problem)
    lost = lost_best(options.run)
    if lost is not None:
        say(lost)


def _say_where_there_is_none(run: str) -> None:
    """Tell that a folder has no checkpoint; of damaged ones their readers tell."""
    from sgloc.train.checkpoint import checkpoint_folders
    from sgloc.train.checkpoint.load import no_checkpoint

    if not checkpoint_folders(run):
        tell("sgloc checkpoint list", str(no_checkpoint(run)))


def _verify(words: list[str]) -> None:
    """Read every file of a checkpoint, or of all of a run's, and name what is damaged; exit code 2 tells of it."""
    parser = new_parser("checkpoint verify", _verify)
    parser.add_argument("path", help="folder or URL of a checkpoint, or of a run")
    options = parse(parser, words, "path")
    from sgloc.train.checkpoint.load import list_checkpoints

    damaged = False
    for one in list_checkpoints(options.path):
        num_files = len(one.manifest.files) if one.manifest else 0
        show(f"{one.folder}: {'damaged' if one.problems else 'whole'}, {num_files} files of tensors")
        for problem in one.problems:
            show(f"  {problem}")
        damaged = damaged or bool(one.problems)
    if damaged:
        sys.exit(MISTAKE)


def _show(words: list[str]) -> None:
    """What a checkpoint holds, or a run's best: configuration, state, versions, tensors with their shapes."""
    parser = new_parser("checkpoint show", _show)
    parser.add_argument("path", help="folder or URL of a checkpoint, or of a run, of which the best is taken")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    options = parse(parser, words, "path")
    from sgloc.train.checkpoint import read_manifest, use_checkpoint
    from sgloc.train.checkpoint.load import facts

    folder, manifest = use_checkpoint(options.path, read_manifest)
    everything = {"folder": folder, **facts(manifest)}
    if options.json:
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


def _export(words: list[str]) -> None:
    """Write a checkpoint's model as one safetensors file with its configuration and a model card."""
    parser = new_parser("checkpoint export", _export)
    parser.add_argument("path", help="folder or URL of a checkpoint, or of a run, of which the best is taken")
    parser.add_argument("--out", required=True, help="folder or URL to write to")
    options = parse(parser, words, "path", "out")
    from sgloc.hub.export import export_model

    folder, num_values = export_model(options.path, options.out)
    show(f"{options.out}: {num_values:,} numbers of {folder}; sgloc.load_pretrained({options.out!r}) gives the model")


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": _list,
    "verify": _verify,
    "show": _show,
    "export": _export,
}
