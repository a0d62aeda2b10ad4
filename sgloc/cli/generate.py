"""`sgloc generate`."""

from sgloc.cli.parsing import add_shared, new_parser, parse, show


def generate(words: list[str]) -> None:
    """Redraw sketches with a trained model: simplified ndjson, an SVG each, and a gallery."""
    parser = new_parser("generate", generate)
    add_shared(parser, "checkpoint", "data", "out")
    parser.add_argument(
        "--task",
        choices=["synthesis", "reorganization"],
        default="synthesis",
        help="redraw the sketches, or first move their strokes",
    )
    parser.add_argument(
        "--disturb",
        type=float,
        default=0.1,
        help="how far reorganization moves strokes, in sketch sizes (r of METHOD 3)",
    )
    parser.add_argument("--count", type=int, default=64, help="sketches, spread evenly over the split")
    parser.add_argument(
        "--rows", default="original,disturbed,put_back,redrawn", help="rows of the gallery, comma-separated"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the disturbance and of sampling")
    add_shared(parser, "split", "temperature", "max_points", "batch_size", "device")
    options = parse(parser, words, "checkpoint", "data", "out")
    from sgloc.dist import resolve_placement, select_device
    from sgloc.evaluate.generate import GenerateOptions
    from sgloc.evaluate.generate import generate as redraw
    from sgloc.memory import keep_freed_memory

    wanted = GenerateOptions(
        split=options.split,
        count=options.count,
        disturb=options.disturb if options.task == "reorganization" else 0.0,
        temperature=options.temperature,
        max_points=options.max_points,
        seed=options.seed,
        batch_size=options.batch_size,
        rows=tuple(name.strip() for name in options.rows.split(",")),
    )
    device = select_device(options.device, resolve_placement({}))
    if device.type == "cpu":
        keep_freed_memory()
    drawn = redraw(options.checkpoint, options.data, options.out, wanted, device=device)
    out = options.out.rstrip("/")
    show(f"{len(drawn)} sketches redrawn: {out}/gallery.png, {out}/redrawn.ndjson, {out}/svg/")
