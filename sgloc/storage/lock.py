"""Run folder lock: two runs writing to the same folder would destroy each other's checkpoints."""

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
    """Take an exclusive lock on an open local file; the kernel releases it however the process ends.

    Returns:
        Whether the file is locked; False on network file systems without locks.

    Raises:
        BlockingIOError: if another process holds the lock.
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
    """A run's claim to its folder.

    Attributes:
        run_dir: folder or URL of the run.
        token: content of the lock file in a store without locks, replaced when another run claims the folder; None if a
            real lock is held.
    """

    run_dir: str
    token: str | None = None

    def check(self) -> None:
        """Check that no other run has claimed the folder; call this before writing.

        Raises:
            ConfigError: if another run has claimed it.
            OSError: if the lock file cannot be read.
        """
        if self.token is None:
            return
        storage = Storage(self.run_dir)
        # The store's client may have cached the file.
        storage.file_system.invalidate_cache()
        if storage.content(FILE_NAME).decode(errors="replace") != self.token:
            raise ConfigError(
                f"another run has since been started in {self.run_dir}, so this run stops; "
                "choose another run folder (train.run) for one of them"
            )


@contextlib.contextmanager
def only_writer(run_dir: str) -> Iterator[Claim]:
    """Hold a run's folder while the context is active.

    In a local folder a second run is refused; the kernel releases the lock however the first run ends, so there is
    nothing to clean up. Stores and some network file systems have no locks: there the run that started last owns the
    folder, and `Claim.check` stops the others.

    Raises:
        OccupiedError: if another process holds the folder.
        ConfigError: if the folder cannot be written to.
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
                f"another run is writing to {run_dir}; wait for it, stop it, or choose another run folder (train.run)"
            ) from error
        except OSError as error:
            # The cause decides whether the error is transient; see `exit_code_of`.
            raise ConfigError(f"cannot write to {run_dir} ({error}); choose a writable folder (train.run)") from error
        yield Claim(run_dir, None if is_locked else token)
