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
    """Look for what would spoil a run, with the ranks that a run would have: plain, under torchrun or srun.

    Exit code 1 tells of a problem.

    Args:
        options: What to look at.
        json: Print JSON in place of text and tables.
    """
    # What torch's C++ says of a connection that fails, with its stack, is told below in a sentence.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from sgloc.doctor.finding import print_table, to_json
    from sgloc.doctor.run import examine
    from sgloc.terminal import results, working

    bar = contextlib.ExitStack()
    bar.enter_context(working("examining"))

    def present(findings: "list[Finding]") -> None:
        # Whatever hangs, the findings are the last that is shown.
        bar.close()
        if json:
            show(to_json(findings), end="")
        else:
            print_table(findings, results())

    with bar:
        is_well = examine(options, os.environ, present)
    if not is_well:
        sys.exit(PASSING)
