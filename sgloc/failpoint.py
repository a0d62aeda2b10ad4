"""Faults on request, for tests of what becomes of a run when something happens at a certain place.

SGLOC_FAILPOINT names a place, what happens there, and optionally the step and the rank: "checkpoint.written:kill:8:1".
Without the variable nothing happens anywhere; after a restart by torchrun it does not happen again.
"""

import errno
import os
import signal


def failpoint(place: str, step: int) -> bool:
    """Say that the program is at a place, where what was requested happens.

    Args:
        place: its name.
        step: of the run.

    Returns:
        Whether this is where "hit" was requested, for what only the place itself can do.

    Raises:
        OSError: where "full" was requested, as a full disk gives it.
        KeyError: where "fault" was requested, as a fault of the program may.
    """
    wanted, action, *where = f"{os.environ.get('SGLOC_FAILPOINT', '')}::".split(":")
    at_step, at_rank = (*(word for word in where if word), "", "")[:2]
    if place != wanted or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return False
    if at_step not in ("", str(step)) or at_rank not in ("", os.environ.get("RANK", "0")):
        return False
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    if action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if action == "fault":
        raise KeyError(place)
    return action == "hit"
