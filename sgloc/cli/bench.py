"""`sgloc bench`: what it measures, and the options of each measurement."""

import dataclasses
import sys

import jsonargparse

from sgloc.bench.options import OPTIONS
from sgloc.cli.parsing import check_location, fail, nearest, new_parser, parse, show
from sgloc.cli.train import config_parser, instantiate
from sgloc.errors import ConfigError


def bench(words: list[str]) -> None:
    """Measure speed, memory and padding: `sgloc bench step` and five more."""
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {kind.__doc__}" for name, kind in OPTIONS.items()]
        usage = "usage: sgloc bench <what> [options]; `sgloc bench <what> --help` lists the options"
        show("\n".join([usage, "", *lines]))
        return
    what = words[0]
    if what not in OPTIONS:
        hint = nearest(what, list(OPTIONS)) or f"; it must be one of {', '.join(OPTIONS)}"
        fail("sgloc bench", f"there is no bench {what!r}{hint}; see `sgloc bench --help`")
    _bench(what, words[1:])


def _bench(what: str, words: list[str]) -> None:
    kind = OPTIONS[what]
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = new_parser(f"bench {what}", kind.__doc__ or "")
    parser.add_class_arguments(kind)
    parser.add_argument("--config", type=str, default=None, help="YAML file of options of `sgloc train`")
    parser.add_argument("--json", action="store_true", help="print JSON lines in place of a table")
    options = parse(parser, words)
    for name in ("data", "remote"):
        if options.get(name) is not None:
            check_location(parser, name, options[name])
    training = config_parser(f"bench {what}", kind.__doc__ or "")
    config = instantiate(training, parse(training, [f"--config={options.config}"] if options.config else []))
    try:
        wanted = kind(**{field.name: options[field.name] for field in dataclasses.fields(kind)})
    except ConfigError as error:
        fail(parser.prog, str(error))
    from rich.console import Console

    from sgloc.bench import run
    from sgloc.dist import resolve_placement, select_device
    from sgloc.memory import keep_freed_memory

    if select_device(wanted.device, resolve_placement({})).type == "cpu":
        keep_freed_memory()
    report = run.bench(what, wanted, config)
    if options.json:
        show(report.to_json(), end="")
    else:
        # Where there is no terminal there is no width to keep to.
        report.print(Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160))
