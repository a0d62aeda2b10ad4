"""`sgloc reorganize`."""

from sgloc.cli.parsing import add_shared, new_parser, parse, say, show


def reorganize(words: list[str]) -> None:
    """Put the strokes of your own drawing where they belong: SVG in, SVG out, and a picture of before and after.

    The drawing is an .svg or .svgz file; an .ndjson file with a drawing a line, as QuickDraw has them; or a .json file,
    a list of strokes, each a list of points [x, y]. Its own strokes are moved, and the model redraws it. The first
    stroke stays where it is.
    """
    parser = new_parser("reorganize", reorganize)
    parser.add_argument("drawing", help="path or URL of the drawing")
    add_shared(parser, "checkpoint", "out", "temperature", "device")
    parser.add_argument("--seed", type=int, default=0, help="seed of sampling")
    options = parse(parser, words, "drawing", "checkpoint", "out")
    from sgloc.sketch.reading import read_own

    # A drawing that cannot be read is refused before the model, and torch with it, is loaded.
    named = read_own(options.drawing)
    from sgloc.dist import resolve_placement, select_device
    from sgloc.evaluate.reorganize import PICTURE, reorganize_drawings
    from sgloc.hub.load import load_model

    device = select_device(options.device, resolve_placement({}))
    pretrained = load_model(options.checkpoint, device)
    done = reorganize_drawings(pretrained, named, options.out, temperature=options.temperature, seed=options.seed)
    out = options.out.rstrip("/")
    for one in done[:10]:
        show(f"{out}/{one.name}-moved.svg" + (f", {out}/{one.name}-redrawn.svg" if one.redrawn else ""))
    if len(done) > 10:
        show(f"and {len(done) - 10} drawings more")
    show(f"{out}/{PICTURE}")
    empty = [one.name for one in done if not one.redrawn]
    if empty:
        more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
        say(f"the model drew nothing for {', '.join(empty[:10])}{more}; so there is no -redrawn.svg of that")
