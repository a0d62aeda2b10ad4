"""One run, one folder: two processes that write checkpoints into the same would destroy each other's."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from sgloc.errors import ConfigError

FILE_NAME = ".lock"


@contextlib.contextmanager
def only_writer(run_dir: str) -> Iterator[None]:
    """Hold a run's folder while inside. The kernel lets go of it however the process ends; nothing is left to clean up.

    Folders that are not local, or on a file system without locks, are not held.

    Raises:
        ConfigError: if another process holds it, or it cannot be written.
    """
    file_system, root = fsspec.core.url_to_fs(run_dir)
    if not isinstance(file_system, LocalFileSystem):
        yield
        return
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        Path(root, FILE_NAME).touch()
    except OSError as error:
        raise ConfigError(f"cannot write to {run_dir} ({error}); give a --train.run_dir that can be written") from error
    with Path(root, FILE_NAME).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another run is writing to {run_dir}; wait for it, stop it, or give another --train.run_dir"
            ) from error
        except OSError:
            # No locks here, as on some network file systems.
            pass
        yield
