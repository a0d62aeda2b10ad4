"""All access to files, local or behind an fsspec URL: read, write, commit, list, lock and retry.

retry.py classifies errors as transient or permanent, and retries; file_system.py opens paths and URLs; folder.py has
`Storage`, a folder of files; lock.py reserves a run folder for one run; download.py downloads a remote file.
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
