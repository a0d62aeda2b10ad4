"""One run, one folder: two processes that write checkpoints into the same would destroy each other's."""

import contextlib
import fcntl
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sgloc.errors import ConfigError, OccupiedError
from sgloc.storage.folder import Storage

FILE_NAME = ".lock"


def lock(stream: IO[Any]) -> bool:
    """Lock an open local file for this process alone; the kernel lets go of it however the process ends.

    Returns:
        Whether it is locked: some network file systems have no locks.

    Raises:
        BlockingIOError: if another process holds it.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Claim:
    """A run's hold on its folder.

    Attributes:
        run_dir: the folder or URL.
        token: stands in the lock's file of a store without locks, until another run claims the folder; None where a
            lock is held.
    """

    run_dir: str
    token: str | None = None

    def check(self) -> None:
        """Make sure, before something is written, that no other run has claimed the folder.

        Raises:
            ConfigError: if one has.
            OSError: if the store cannot be asked.
        """
        if self.token is None:
            return
        storage = Storage(self.run_dir)
        # A store's client may remember what was read before.
        storage.file_system.invalidate_cache()
        if storage.content(FILE_NAME).decode(errors="replace") != self.token:
            raise ConfigError(
                f"another run has been started in {self.run_dir} since; this one leaves it to that one: "
                "stop either, or give one of them another folder"
            )


@contextlib.contextmanager
def only_writer(run_dir: str) -> Iterator[Claim]:
    """Hold a run's folder while inside.

    In a local folder the second run is refused, and the kernel lets go however the first one ends; nothing is left to
    clean up. A store has no locks, nor have some network file systems: there the run that started last has the folder,
    and `Claim.check` stops the others.

    Raises:
        OccupiedError: if another process holds it.
        ConfigError: if it cannot be written.
    """
    storage, token = Storage(run_dir), secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        is_locked = False
        try:
            storage.make_folder()
            if storage.is_local:
                is_locked = lock(stack.enter_context(Path(storage.path(FILE_NAME)).open("a")))
            if not is_locked:
                storage.write(FILE_NAME, [token.encode()])
        except BlockingIOError as error:
            raise OccupiedError(
                f"another run is writing to {run_dir}; wait for it, stop it, or give this one another folder"
            ) from error
        except OSError as error:
            # Its cause decides whether it may pass.
            raise ConfigError(f"cannot write to {run_dir} ({error}); give a run folder that can be written") from error
        yield Claim(run_dir, None if is_locked else token)
