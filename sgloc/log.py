"""Logging for programs: which records reach standard error, and how they look.

The library logs through `logging.getLogger(__name__)` and configures nothing. A program calls `configure` once. Level
INFO is for what a person wants to follow, WARNING for what was skipped, retried or lost.
"""

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping

from sgloc.masking import mask

FORMS = ("text", "json")
# What processes that a program starts are to do as it does: the name of a level, and a form.
LEVEL_VARIABLE, FORM_VARIABLE = "SGLOC_LOG_LEVEL", "SGLOC_LOG_FORMAT"
# Of launchers, in order of precedence: torchrun's, srun's.
_RANK_VARIABLES = ("RANK", "SLURM_PROCID")


def rank_of(environment: Mapping[str, str]) -> int:
    """The rank that a launcher gave this process; 0 without one. It is needed before torch is imported."""
    given = next((environment[name] for name in _RANK_VARIABLES if environment.get(name, "").isdecimal()), "0")
    return int(given)


def configure() -> None:
    """Send the records of this package to standard error.

    Rank 0 speaks from the level on that SGLOC_LOG_LEVEL names, INFO by default. The other ranks repeat nothing: they
    speak of warnings and errors, or, at DEBUG, of everything. At DEBUG, every line names its time, rank, module and
    level. SGLOC_LOG_FORMAT says whether lines are "text" for people, the default, or "json": an object each, for the
    log collectors of clusters.
    """
    level = logging.getLevelNamesMapping().get(os.environ.get(LEVEL_VARIABLE, ""), logging.INFO)
    is_json = os.environ.get(FORM_VARIABLE) == "json"
    logger = logging.getLogger("sgloc")
    for old in [handler for handler in logger.handlers if isinstance(handler, _StandardError)]:
        logger.removeHandler(old)
    logger.addHandler(_StandardError(level, rank_of(os.environ), is_json=is_json))
    logger.setLevel(min(level, logging.INFO))


class _StandardError(logging.Handler):
    """Writes to whatever is standard error now, a bar's console included; where that is gone, to nobody.

    Attributes:
        is_json: whether it writes for log collectors, not for people.
    """

    def __init__(self, level: int, rank: int, *, is_json: bool) -> None:
        self.is_json, self._rank, self._is_detailed = is_json, rank, level <= logging.DEBUG
        super().__init__(level if rank == 0 or self._is_detailed else max(level, logging.WARNING))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, without the secrets of its URLs."""
        line = mask(self._json(record) if self.is_json else self._text(record))
        # Closed, it is None; once its pipe is broken or the disk is full, it raises.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def _text(self, record: logging.LogRecord) -> str:
        """A line for people, and the traceback of an error, if the record has one."""
        message = record.getMessage()
        if self._is_detailed:
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            message = f"{clock} rank {self._rank} {record.name} {record.levelname}: {message}"
        elif self._rank != 0:
            message = f"rank {self._rank}: {message}"
        return f"{_traceback(record)}{message}"

    def _json(self, record: logging.LogRecord) -> str:
        """A JSON object: time in seconds since 1970, level, rank, module, message, and a traceback if there is one."""
        traceback = _traceback(record).rstrip()
        fields = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "rank": self._rank,
            "module": record.name,
            "message": record.getMessage(),
        }
        return json.dumps({**fields, **({"traceback": traceback} if traceback else {})}, ensure_ascii=False)


def is_for_people(level: int = logging.INFO) -> bool:
    """Whether this process writes lines of this level for people."""
    handlers = [handler for handler in logging.getLogger("sgloc").handlers if isinstance(handler, _StandardError)]
    return any(handler.level <= level and not handler.is_json for handler in handlers)


def _traceback(record: logging.LogRecord) -> str:
    """The lines of that of the error that a record is about; `trace` of a record has those of other processes, too."""
    trace = str(getattr(record, "trace", "")).rstrip()
    if not trace and isinstance(record.exc_info, tuple) and record.exc_info[2]:
        trace = logging.Formatter().formatException(record.exc_info)
    return f"{trace}\n" if trace else ""
