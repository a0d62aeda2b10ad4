"""One run, one folder: two processes that write checkpoints into the same would destroy each other's."""

import contextlib
import fcntl
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from sgloc.errors import ConfigError, OccupiedError

FILE_NAME = ".lock"


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
        file_system, root = fsspec.core.url_to_fs(self.run_dir)
        # A store's listings, and what was read before, may be remembered.
        file_system.invalidate_cache()
        if file_system.cat_file(f"{root}/{FILE_NAME}").decode(errors="replace") != self.token:
            raise ConfigError(
                f"another run has been started in {self.run_dir} since; this one leaves it to that one: "
                "stop either, or give another --train.run"
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
    file_system, root = fsspec.core.url_to_fs(run_dir)
    if not isinstance(file_system, LocalFileSystem):
        yield _claim(run_dir)
        return
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        Path(root, FILE_NAME).touch()
    except OSError as error:
        raise _cannot_be_written(run_dir, error) from error
    with Path(root, FILE_NAME).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OccupiedError(
                f"another run is writing to {run_dir}; wait for it, stop it, or give another --train.run"
            ) from error
        except OSError:
            # No locks here, as on some network file systems.
            yield _claim(run_dir)
            return
        yield Claim(run_dir)


def _claim(run_dir: str) -> Claim:
    """Take a folder from whichever run has it."""
    file_system, root = fsspec.core.url_to_fs(run_dir)
    token = secrets.token_hex(16)
    try:
        file_system.makedirs(root, exist_ok=True)
        file_system.pipe_file(f"{root}/{FILE_NAME}", token.encode())
    except OSError as error:
        raise _cannot_be_written(run_dir, error) from error
    return Claim(run_dir, token)


def _cannot_be_written(run_dir: str, error: OSError) -> ConfigError:
    """What to raise, of which the cause decides whether it may pass."""
    return ConfigError(f"cannot write to {run_dir} ({error}); give a --train.run that can be written")
