"""`sgloc doctor`."""

import os
import sys
from typing import TYPE_CHECKING

from sgloc.cli.parsing import check_location, new_parser, parse, show
from sgloc.orphan import die_with_parent

if TYPE_CHECKING:
    from sgloc.doctor import Finding


def doctor(words: list[str]) -> None:
    """Look for what would spoil a run, with the ranks that a run would have: plain, under torchrun or srun.

    Exit code 1 tells of a problem.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    parser = new_parser("doctor", doctor)
    parser.add_argument("--data", default=None, type=str, help="folder or URL of shards to read")
    parser.add_argument(
        "--run", default=None, type=str, help="folder or URL that the run is to write to; left as it was"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that one check of a rank may take")
    parser.add_argument("--json", action="store_true", help="print JSON lines in place of a table")
    options = parse(parser, words)
    for name in ("data", "run"):
        if options[name] is not None:
            check_location(parser, name, options[name])
    # What torch's C++ says of a connection that fails, with its stack, is told below in a sentence.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from rich.console import Console

    from sgloc.doctor import DoctorOptions, examine
    from sgloc.doctor.finding import print_table, to_json

    def present(findings: "list[Finding]") -> None:
        if options.json:
            show(to_json(findings), end="")
        else:
            # Where there is no terminal there is no width to keep to.
            width = None if sys.stdout.isatty() else 160
            print_table(findings, Console(highlight=False, markup=False, width=width))

    wanted = DoctorOptions(options.data, options.run, options.device, options.timeout)
    if not examine(wanted, os.environ, present):
        sys.exit(1)
