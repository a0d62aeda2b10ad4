"""Failure injection, to test how a run behaves when something fails at a certain point.

SGLOC_FAILPOINT sets the place, the action, and optionally the step and rank: "checkpoint.written:kill:8:1". Without the
variable, fail points do nothing; after a restart by torchrun, the action is not repeated.
"""

import errno
import os
import signal


def failpoint(place: str, step: int) -> bool:
    """Mark a fail point; perform the action that SGLOC_FAILPOINT requests for it.

    Args:
        place: name of the fail point.
        step: current step of the run.

    Returns:
        Whether the action "hit" was requested here; the caller then injects the failure itself.

    Raises:
        OSError: for the action "full", like a full disk.
        KeyError: for the action "fault", like a bug.
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
