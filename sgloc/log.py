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
import types
from collections.abc import Mapping
from typing import Literal, get_args

from sgloc.masking import mask

Form = Literal["text", "json"]
FORMS: tuple[str, ...] = get_args(Form)
# What processes that a program starts are to do as it does: the name of a level, and a form.
LEVEL_VARIABLE, FORM_VARIABLE = "SGLOC_LOG_LEVEL", "SGLOC_LOG_FORMAT"
# Of launchers, in order of precedence: torchrun's, srun's.
_RANK_VARIABLES = ("RANK", "SLURM_PROCID")


def rank_of(environment: Mapping[str, str]) -> int:
    """The rank that a launcher gave this process; 0 without one. It is needed before torch is imported."""
    given = next((environment[name] for name in _RANK_VARIABLES if environment.get(name, "").isdecimal()), "0")
    return int(given)


def configure(level: int | None = None, form: Form | None = None) -> None:
    """Send the records of this package to standard error.

    Rank 0 speaks from `level` on. The other ranks repeat nothing: they speak of warnings and errors, or, at DEBUG, of
    everything.

    Args:
        level: the lowest level of rank 0. At DEBUG, every line names its time, rank, module and level. None: as the
            environment's SGLOC_LOG_LEVEL says, else INFO.
        form: "text": lines for people; "json": an object a line, for the log collectors of clusters. None: as the
            environment's SGLOC_LOG_FORMAT says, else text.
    """
    if level is None:
        level = logging.getLevelNamesMapping().get(os.environ.get(LEVEL_VARIABLE, ""), logging.INFO)
    is_json = (form or os.environ.get(FORM_VARIABLE)) == "json"
    rank = rank_of(os.environ)
    logger = logging.getLogger("sgloc")
    for old in [handler for handler in logger.handlers if isinstance(handler, _StandardError)]:
        logger.removeHandler(old)
    handler = _StandardError()
    is_detailed = level <= logging.DEBUG
    handler.setFormatter(_Json(rank) if is_json else _Text(rank, is_detailed=is_detailed))
    handler.setLevel(level if rank == 0 or is_detailed else max(level, logging.WARNING))
    logger.addHandler(handler)
    logger.setLevel(min(level, logging.INFO))


class _StandardError(logging.Handler):
    """Writes to whatever is standard error now, a bar's console included; where that is gone, to nobody."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, without the secrets of its URLs."""
        line = mask(self.format(record))
        # Closed, it is None; once its pipe is broken or the disk is full, it raises.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


class _Text(logging.Formatter):
    def __init__(self, rank: int, *, is_detailed: bool) -> None:
        super().__init__()
        self._rank, self._is_detailed = rank, is_detailed

    def format(self, record: logging.LogRecord) -> str:
        """A line for people, and the traceback of an error, if the record has one."""
        message = record.getMessage()
        if self._is_detailed:
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            message = f"{clock} rank {self._rank} {record.name} {record.levelname}: {message}"
        elif self._rank != 0:
            message = f"rank {self._rank}: {message}"
        return "\n".join([*_traceback(self, record), message])


class _Json(logging.Formatter):
    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def format(self, record: logging.LogRecord) -> str:
        """A JSON object: time in seconds since 1970, level, rank, module, message, and a traceback if there is one."""
        fields = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "rank": self._rank,
            "module": record.name,
            "message": record.getMessage(),
        }
        traceback = _traceback(self, record)
        return json.dumps({**fields, **({"traceback": traceback[0]} if traceback else {})}, ensure_ascii=False)


def is_for_people(level: int = logging.INFO) -> bool:
    """Whether this process writes lines of this level for people."""
    handlers = [handler for handler in logging.getLogger("sgloc").handlers if isinstance(handler, _StandardError)]
    return any(handler.level <= level and isinstance(handler.formatter, _Text) for handler in handlers)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    """That of the error that a record is about; `trace` of a record has those of other processes, too."""
    trace = str(getattr(record, "trace", "")).rstrip()
    if trace:
        return [trace]
    if isinstance(record.exc_info, tuple) and isinstance(record.exc_info[2], types.TracebackType):
        return [formatter.formatException(record.exc_info)]
    return []
