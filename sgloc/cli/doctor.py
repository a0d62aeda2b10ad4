"""`sgloc doctor`."""

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from sgloc.doctor.options import DoctorOptions
from sgloc.faults import PASSING
from sgloc.program import show

if TYPE_CHECKING:
    from sgloc.doctor.finding import Finding


def doctor(options: DoctorOptions, json: bool = False) -> None:
    """Check the environment for problems that would break a run.

    Start it as you would start the run: plainly, under torchrun or under srun. The exit code is 1 if a problem is
    found.

    Args:
        options: What to check.
        json: Print JSON instead of text and tables.
    """
    # torch's C++ code logs failed connections with a stack; the findings below report them in one sentence.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from sgloc.doctor.finding import print_table, to_json
    from sgloc.doctor.run import examine
    from sgloc.terminal import results, working

    bar = contextlib.ExitStack()
    bar.enter_context(working("examining"))

    def present(findings: "list[Finding]") -> None:
        # Close the bar first, so that the findings are the last output even if something hangs.
        bar.close()
        if json:
            show(to_json(findings), end="")
        else:
            print_table(findings, results())

    with bar:
        is_well = examine(options, os.environ, present)
    if not is_well:
        sys.exit(PASSING)
