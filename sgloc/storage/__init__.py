"""The one way to files anywhere, on a disk or behind an fsspec URL: read, write, commit, list, lock and try again.

retry.py tells which errors may pass and tries again; file_system.py opens what a location names; folder.py is a folder,
`Storage`; lock.py keeps a run's folder to one run; download.py brings a remote file to a local path.
"""

# ruff: noqa: I001
# fmt: off
from sgloc.storage.file_system import (
    is_local, local_path, of_this_process, open_file, open_file_system, read_range, write_file,
)
from sgloc.storage.folder import Storage
from sgloc.storage.lock import Claim, only_writer
from sgloc.storage.retry import (
    STORES, DamagedReadError, Retries, describe, is_transient, reading, retry, retry_reading, writing,
)

__all__ = [
    "STORES", "Claim", "DamagedReadError", "Retries", "Storage", "describe", "is_local", "is_transient",
    "local_path", "of_this_process", "only_writer", "open_file", "open_file_system", "read_range",
    "reading", "retry", "retry_reading", "write_file", "writing",
]
