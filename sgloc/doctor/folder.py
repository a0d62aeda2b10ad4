"""Whether a run's folder can be written by every rank, is seen alike by all, and has room."""

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from sgloc.doctor.examination import Examination
from sgloc.doctor.finding import Finding
from sgloc.errors import DataError

_CHECK = "run folder"
# Written by all ranks together.
_NUM_BYTES, _LEAST_BYTES = 2**27, 2**20
# Until a file that one rank wrote must be seen by the others.
_SEEN_SECONDS, _SLOW_SECONDS = 5.0, 1.0
_POLL_SECONDS = 0.02
# Weights and Adam's two moments, float32; and how many of them a run keeps by default, with the one being written.
BYTES_A_PARAMETER, _NUM_CHECKPOINTS = 12, 4
_SLOW_CHECKPOINT = 60.0


@dataclass(frozen=True)
class Folder:
    """What a rank saw.

    Attributes:
        seen_seconds: until it saw what rank 0 had written.
        write_seconds: for its part of what all wrote.
        is_locked: whether rank 0's lock kept it out; None where there are no locks.
        num_free_bytes: on the file system; None where it does not tell.
    """

    seen_seconds: float
    write_seconds: float
    is_locked: bool | None
    num_free_bytes: int | None


class _Probe:
    """A folder inside the run's that is written as checkpoints are, and removed."""

    def __init__(self, run_dir: str, name: str, num_bytes: int) -> None:
        self.file_system, root = _open(run_dir)
        self.root, self.path = root, f"{root}/{name}"
        self.is_local = isinstance(self.file_system, LocalFileSystem)
        self.name, self.num_bytes = name, num_bytes
        self.was_there = True
        self._lock: Any = None

    def prepare(self) -> None:
        """On rank 0: write, and move into place in one step; hold a lock."""
        self.was_there = bool(self.file_system.exists(self.root))
        if not self.is_local:
            self.file_system.pipe_file(f"{self.path}/probe", self.name.encode())
            return
        temporary = Path(f"{self.path}.tmp")
        temporary.mkdir(parents=True)
        (temporary / "probe").write_text(self.name)
        temporary.rename(self.path)
        self._lock = (Path(self.path) / "probe").open()
        with contextlib.suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def wait_until_seen(self) -> float:
        """Seconds until this rank reads what rank 0 wrote.

        Raises:
            DataError: if it does not in time.
        """
        start = time.monotonic()
        while True:
            self.file_system.invalidate_cache()
            with contextlib.suppress(OSError):
                if self.file_system.cat_file(f"{self.path}/probe") == self.name.encode():
                    return time.monotonic() - start
            if time.monotonic() - start > _SEEN_SECONDS:
                raise DataError(f"it does not see within {_SEEN_SECONDS:.0f} s what rank 0 wrote to {self.root}")
            time.sleep(_POLL_SECONDS)

    def write(self, rank: int) -> float:
        """Seconds to have this rank's part on the disk."""
        content = os.urandom(_LEAST_BYTES) * (self.num_bytes // _LEAST_BYTES)
        start = time.monotonic()
        if self.is_local:
            with Path(f"{self.path}/{rank}").open("wb") as stream:
                stream.write(content)
                os.fsync(stream.fileno())
        else:
            self.file_system.pipe_file(f"{self.path}/{rank}", content)
        return time.monotonic() - start

    def is_locked(self) -> bool | None:
        """Whether rank 0's lock is seen here; None where there are no locks."""
        if not self.is_local:
            return None
        with (Path(self.path) / "probe").open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:
                return None
        return False

    def num_free_bytes(self) -> int | None:
        """What this process may still write."""
        if not self.is_local:
            return None
        status = os.statvfs(self.root)
        return status.f_frsize * status.f_bavail

    def see_all(self, world_size: int) -> None:
        """On rank 0: wait until the parts of all ranks are there, whole.

        Raises:
            DataError: naming the ranks whose are not.
        """
        end = time.monotonic() + _SEEN_SECONDS
        missing = list(range(world_size))
        while missing:
            self.file_system.invalidate_cache()
            found = {str(file["name"]).rsplit("/", 1)[-1]: file["size"] for file in self._list()}
            missing = [rank for rank in missing if found.get(str(rank)) != self.num_bytes]
            if missing and time.monotonic() > end:
                raise DataError(f"it does not see within {_SEEN_SECONDS:.0f} s what rank {missing[0]} wrote")
            time.sleep(_POLL_SECONDS if missing else 0)

    def _list(self) -> list[dict[str, Any]]:
        return self.file_system.ls(self.path, detail=True)  # type: ignore[no-any-return]

    def remove(self) -> None:
        """On rank 0: leave the run's folder as it was."""
        if self._lock is not None:
            self._lock.close()
        with contextlib.suppress(OSError):
            if self.is_local:
                for path in (self.path, f"{self.path}.tmp"):
                    shutil.rmtree(path, ignore_errors=True)
                if not self.was_there:
                    Path(self.root).rmdir()
            else:
                self.file_system.rm(self.path, recursive=True)


def _open(run_dir: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(run_dir)  # type: ignore[no-any-return]
    except (ValueError, ImportError) as error:
        raise DataError(f"{run_dir} cannot be used ({error})") from error


def check_folder(examination: Examination, run_dir: str, num_parameters: int) -> None:
    """Write into a run's folder as a run does, from all ranks, and remove it again. All ranks must call it together."""
    name = examination.from_rank_0(f"doctor-{secrets.token_hex(8)}")
    world_size, rank = len(examination.hosts), examination.rank
    num_bytes = max(_LEAST_BYTES, _NUM_BYTES // world_size // _LEAST_BYTES * _LEAST_BYTES)
    advice = f"give a --run that every node can write, as a --train.run must be; now {run_dir}"
    probes: list[_Probe] = []

    def prepare() -> None:
        probes.append(_Probe(run_dir, name, num_bytes))
        if rank == 0:
            probes[0].prepare()

    def look() -> Folder:
        (probe,) = probes
        return Folder(probe.wait_until_seen(), probe.write(rank), probe.is_locked(), probe.num_free_bytes())

    try:
        _, errors = examination.gather(_CHECK, prepare)
        if examination.refuse(_CHECK, errors, advice):
            return
        facts, errors = examination.gather(_CHECK, look)
        if examination.refuse(_CHECK, errors, advice):
            return
        _, errors = examination.gather(_CHECK, lambda: probes[0].see_all(world_size) if rank == 0 else None)
        if not examination.refuse(_CHECK, errors, advice) and rank == 0:
            examination.findings += judge_folder(facts, examination, run_dir, world_size * num_bytes, num_parameters)
    finally:
        if rank == 0 and probes:
            probes[0].remove()


def judge_folder(
    facts: Mapping[int, Folder], ranks: Examination, run_dir: str, num_bytes: int, num_parameters: int
) -> list[Finding]:
    """What all ranks could write is to be seen soon, to be written fast, and to have room.

    Args:
        facts: of each rank.
        ranks: who they are.
        run_dir: the folder.
        num_bytes: that all ranks wrote together.
        num_parameters: of the model whose checkpoints are to be kept there.
    """
    seen = {rank: folder.seen_seconds for rank, folder in facts.items()}
    last = max(seen, key=lambda rank: seen[rank])
    found = f"{run_dir}: all ranks write, and see what others wrote within {seen[last]:.2f} s"
    if seen[last] > _SLOW_SECONDS:
        advice = f"{ranks.names([last])} was last; see the mount options (actimeo, lookupcache)"
        findings = [Finding(_CHECK, "warning", found, advice)]
    else:
        findings = [Finding(_CHECK, "ok", found)]
    if any(folder.is_locked is False for folder in facts.values()):
        who = ranks.names(rank for rank, folder in facts.items() if folder.is_locked is False)
        advice = "never start two runs into one folder: nothing would refuse the second"
        findings.append(Finding("locks", "warning", f"rank 0's lock of a file is not seen by {who}", advice))
    elif any(folder.is_locked is None for folder in facts.values()):
        findings.append(Finding("locks", "ok", "none here: never start two runs into one folder"))
    else:
        findings.append(Finding("locks", "ok", "seen by all ranks"))
    size = BYTES_A_PARAMETER * num_parameters
    return [*findings, *_judge_room(facts, size), _judge_writing(facts, num_bytes, size)]


def _judge_room(facts: Mapping[int, Folder], size: int) -> list[Finding]:
    free = [folder.num_free_bytes for folder in facts.values() if folder.num_free_bytes is not None]
    if not free:
        return []
    found = f"{min(free) / 1e9:,.1f} GB free; a checkpoint of the published sizes takes {size / 1e9:.2f}"
    if min(free) < _NUM_CHECKPOINTS * size:
        advice = f"{_NUM_CHECKPOINTS} are there at times: free {_NUM_CHECKPOINTS * size / 1e9:.1f} GB"
        return [Finding("free space", "problem", found, advice, {"free_bytes": min(free)})]
    return [Finding("free space", "ok", found, numbers={"free_bytes": min(free)})]


def _judge_writing(facts: Mapping[int, Folder], num_bytes: int, size: int) -> Finding:
    rate = num_bytes / max(folder.write_seconds for folder in facts.values())
    found = f"{rate / 1e6:,.0f} MB/s by all ranks together: {size / rate:.1f} s a checkpoint"
    numbers = {"bytes_per_second": rate}
    if size / rate > _SLOW_CHECKPOINT:
        advice = "write to a faster file system, or save less often (--train.checkpoint_every)"
        return Finding("writing", "warning", found, advice, numbers)
    return Finding("writing", "ok", found, numbers=numbers)
