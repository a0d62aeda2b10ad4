"""Logging configuration of programs: which records reach standard error, and in which format.

Library modules log through `logging.getLogger(__name__)` and configure nothing; a program calls `configure`. Level INFO
is for progress that a user wants to follow, WARNING for anything skipped, retried or lost.
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
# Environment variables, inherited by child processes: the name of a level, and a format.
LEVEL_VARIABLE, FORM_VARIABLE = "SGLOC_LOG_LEVEL", "SGLOC_LOG_FORMAT"
# Rank variables of torchrun and srun, in order of precedence.
_RANK_VARIABLES = ("RANK", "SLURM_PROCID")


def rank_of(environment: Mapping[str, str]) -> int:
    """Return the rank set by the launcher, or 0 without one; works before torch is imported."""
    given = next((environment[name] for name in _RANK_VARIABLES if environment.get(name, "").isdecimal()), "0")
    return int(given)


def configure() -> None:
    """Log the records of this package to standard error.

    SGLOC_LOG_LEVEL sets the level of rank 0, INFO by default. The other ranks log only warnings and errors, to avoid
    repetition; at DEBUG they log everything. At DEBUG, every line has its time, rank, module and level.
    SGLOC_LOG_FORMAT sets the format: "text", the default, or "json", one object per line for log collectors.
    """
    level = logging.getLevelNamesMapping().get(os.environ.get(LEVEL_VARIABLE, ""), logging.INFO)
    is_json = os.environ.get(FORM_VARIABLE) == "json"
    logger = logging.getLogger("sgloc")
    for old in [handler for handler in logger.handlers if isinstance(handler, _StandardError)]:
        logger.removeHandler(old)
    logger.addHandler(_StandardError(level, rank_of(os.environ), is_json=is_json))
    logger.setLevel(min(level, logging.INFO))


class _StandardError(logging.Handler):
    """Handler that writes to the current `sys.stderr`, which may be a progress bar's console, and ignores a broken one.

    Attributes:
        is_json: whether the format is JSON.
    """

    def __init__(self, level: int, rank: int, *, is_json: bool) -> None:
        self.is_json, self._rank, self._is_detailed = is_json, rank, level <= logging.DEBUG
        super().__init__(level if rank == 0 or self._is_detailed else max(level, logging.WARNING))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, with secrets in URLs masked."""
        line = mask(self._json(record) if self.is_json else self._text(record))
        # A closed stream is None; a broken pipe or a full disk raises.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def _text(self, record: logging.LogRecord) -> str:
        """Format a record as text, after its traceback if it has one."""
        message = record.getMessage()
        if self._is_detailed:
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            message = f"{clock} rank {self._rank} {record.name} {record.levelname}: {message}"
        elif self._rank != 0:
            message = f"rank {self._rank}: {message}"
        return f"{_traceback(record)}{message}"

    def _json(self, record: logging.LogRecord) -> str:
        """Format a record as a JSON object: time in seconds since 1970, level, rank, module, message, any traceback."""
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
    """Return whether this process logs this level as text."""
    handlers = [handler for handler in logging.getLogger("sgloc").handlers if isinstance(handler, _StandardError)]
    return any(handler.level <= level and not handler.is_json for handler in handlers)


def _traceback(record: logging.LogRecord) -> str:
    """Format a record's traceback; its attribute `trace`, if set, includes those of other processes."""
    trace = str(getattr(record, "trace", "")).rstrip()
    if not trace and isinstance(record.exc_info, tuple) and record.exc_info[2]:
        trace = logging.Formatter().formatException(record.exc_info)
    return f"{trace}\n" if trace else ""
