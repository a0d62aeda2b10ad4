"""`sgloc report`."""

from sgloc.cli.parsing import add_shared, check_location, new_parser, parse, show


def report(words: list[str]) -> None:
    """Write one HTML page of what a run learned: curves, galleries, Rec and Ret, retrieval, a map of codes.

    The page needs nothing else: it can be sent to a friend. Mind the licence of the drawings on it.
    """
    parser = new_parser("report", report)
    parser.add_argument("run", help="folder or URL of a run")
    parser.add_argument("--out", default="", type=str, help="file or URL to write to; default: report.html in the run")
    parser.add_argument("--data", default="", type=str, help="shards; default: those that it was trained on")
    parser.add_argument(
        "--evaluated",
        default="",
        type=str,
        help="folder that `sgloc evaluate` wrote; default: `evaluated` in the run's folder, if it is there",
    )
    parser.add_argument("--count", type=int, default=2000, help="most test drawings on the map of codes")
    parser.add_argument("--examples", type=int, default=10, help="drawings that are redrawn and found again")
    parser.add_argument("--seed", type=int, default=0, help="seed of the disturbance")
    add_shared(parser, "device")
    options = parse(parser, words, "run")
    out = options.out or f"{options.run.rstrip('/')}/report.html"
    check_location(parser, "out", out)
    from sgloc.dist import resolve_placement, select_device
    from sgloc.report.run import write_report
    from sgloc.report.sections import ReportOptions

    wanted = ReportOptions(
        data=options.data,
        evaluated=options.evaluated,
        count=options.count,
        num_examples=options.examples,
        seed=options.seed,
    )
    write_report(options.run, out, wanted, device=select_device(options.device, resolve_placement({})))
    show(out)
