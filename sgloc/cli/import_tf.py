"""`sgloc import-tf`."""

from sgloc.cli.parsing import fail, new_parser, parse, show
from sgloc.program import tell


def import_tf(words: list[str]) -> None:
    """Make a model of a checkpoint of the original TensorFlow 1 program: pip install 'sgloc[tf]' first."""
    parser = new_parser("import-tf", import_tf)
    parser.add_argument(
        "folder", help="local folder with vector-N.index, vector-N.data-* and, if it is there, model_config.json"
    )
    parser.add_argument("--out", required=True, help="folder or URL to write to")
    parser.add_argument(
        "--scale", type=float, default=0.0, help="standard deviation of its data set's offsets, which it does not store"
    )
    parser.add_argument("--data", default="", type=str, help="shards of that data set, whose scale is taken")
    parser.add_argument(
        "--max_points", type=int, default=0, help="of a drawing; 0: as --data or the original's max_seq_len tell"
    )
    parser.add_argument(
        "--max_node_points",
        type=int,
        default=0,
        help="of a graph node; 0: as the original's max_stroke_len tells, or a node is a whole stroke",
    )
    options = parse(parser, words, "folder", "out")
    if (options.scale != 0) == bool(options.data):
        fail(parser.prog, "the original does not store its scale; give either --scale or --data")
    from sgloc.data.manifest import load_manifest
    from sgloc.hub.import_tf import import_tf as run

    scale, longest, licence = options.scale, options.max_points, ""
    if options.data:
        manifest = load_manifest(options.data)
        scale, longest, licence = manifest.scale, longest or manifest.longest_points, manifest.licence
    done = run(options.folder, options.out, scale, longest, licence, max_node_points=options.max_node_points)
    for note in done.notes:
        tell(parser.prog, note)
    nodes = f"nodes of at most {done.max_node_points} points" if done.max_node_points else "nodes of whole strokes"
    show(
        f"{options.out}: {done.num_values:,} numbers of {done.checkpoint}, scale {scale:g}, {nodes}; {done.num_left} "
        f"variables of its training are left out; sgloc.load_pretrained({options.out!r}) gives the model"
    )
