"""The logger for metrics.jsonl, which every run writes."""

import json
import time
from pathlib import Path

from sgloc.storage import Storage
from sgloc.strict_json import to_json
from sgloc.threads import Patience
from sgloc.train.loggers.base import Logger, Record

METRICS_NAME = "metrics.jsonl"

# Minimum seconds between writes to a remote store, which cannot append, and where even a failure may take long.
_STORE_PAUSE = 60.0


class JSONLines(Logger):
    """Writes metrics.jsonl in the run folder, one record per line.

    On resume, it drops the records of later steps, which will be logged again, and a line truncated by a kill. Lines
    that cannot be written (the disk is full, say) are kept and written later. On a remote store, where every write
    replaces the file, lines are written once a minute and before each checkpoint, from which the run may resume.

    Args:
        run_dir: folder or URL of the run.
        resumed_step: step at which the run starts or resumes.
        patience: seconds that a remote store may take for a write.

    Raises:
        OSError: if the file cannot be written.
    """

    name = METRICS_NAME

    def __init__(self, run_dir: str, resumed_step: int, patience: float = 10.0) -> None:
        self._storage = Storage(run_dir)
        self.path, self.is_local = self._storage.path(METRICS_NAME), self._storage.is_local
        self._patience = Patience(patience, f"the store of {run_dir}")
        content = self._storage.content(METRICS_NAME) if self._storage.exists(METRICS_NAME) else b""
        lines = content.decode(errors="replace").splitlines()
        self.lines = [line for line in lines if _step_of(line) <= resumed_step]
        self.next_write, self.has_failed = 0.0, False
        self._rewrite()

    def _rewrite(self) -> None:
        """Replace the file atomically, so that a kill leaves either the old or the new one."""
        content = _as_bytes(self.lines)
        self._storage.write(METRICS_NAME, [content])
        self.num_written, self.size = len(self.lines), len(content)

    def log(self, record: Record) -> None:
        """Append a record; on a local disk, write it immediately, after any lines that could not be written before.

        Raises:
            OSError: if the write failed; a later one may succeed.
            SilentStoreError: if the store does not answer.
        """
        self.lines.append(to_json(record))
        if self.is_local or time.monotonic() >= self.next_write:
            self._write()

    def _write(self) -> None:
        """Write all pending lines; the other ranks wait meanwhile."""
        if self.is_local and self._append():
            return
        self.has_failed, self.next_write = True, time.monotonic() + _STORE_PAUSE
        self._patience(self._rewrite)
        self.has_failed = False

    def _append(self) -> bool:
        """Append pending lines; return False if the file's size has changed: a full disk may have cut off a line."""
        content = _as_bytes(self.lines[self.num_written :])
        with Path(self.path).open("ab") as stream:
            if stream.tell() != self.size:
                return False
            stream.write(content)
        self.num_written, self.size = len(self.lines), self.size + len(content)
        return True

    def flush(self) -> None:
        """Write all pending lines, unless a remote store has just failed.

        Raises:
            OSError: if the write failed; a later one may succeed.
            SilentStoreError: if the store does not answer.
        """
        is_failing = not self.is_local and self.has_failed and time.monotonic() < self.next_write
        if self.num_written < len(self.lines) and not is_failing:
            self._write()

    def close(self) -> None:
        """Write the lines that are still pending.

        Raises:
            OSError: if the write failed; those lines are lost.
            SilentStoreError: if the store does not answer.
        """
        if self.num_written < len(self.lines):
            try:
                self._write()
            except OSError as error:
                num_lost = len(self.lines) - self.num_written
                said = f"{error.strerror or error}, and its last {num_lost} lines are lost"
                raise OSError(error.errno, said) from error


def _as_bytes(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def _step_of(line: str) -> float:
    """Return the step of a line, or infinity for a truncated line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
