"""Opening a file of drawings, wherever it is, without trusting it."""

import contextlib
import gzip
import io
from collections.abc import Iterator
from typing import IO, Any

from sgloc.errors import DataError
from sgloc.storage import open_file

# Drawings unpack to five times their packed size, and a file of few bytes may well be one of many equal drawings.
MAX_COMPRESSION_RATIO = 200
_ALWAYS_UNPACKED = 2**20
_BUFFER_BYTES = 2**18


@contextlib.contextmanager
def open_unpacked(location: str) -> Iterator[io.BufferedReader]:
    """Open a file to be read from its start to its end, unpacked if its name ends in .gz; belongs inside `reading`.

    Args:
        location: a local path or any fsspec URL.

    Raises:
        DataError: while reading, if the file unpacks to far more than drawings do.
    """
    with open_file(location) as packed:
        raw = _Unpacked(location, packed) if location.endswith(".gz") else packed
        with io.BufferedReader(raw, _BUFFER_BYTES) as stream:
            yield stream


class _Unpacked(gzip.GzipFile):
    """What a gzip file unpacks to, as long as it is not far more than drawings unpack to."""

    def __init__(self, location: str, packed: IO[bytes]) -> None:
        super().__init__(fileobj=packed)
        self._location, self._packed = location, packed

    def readinto(self, buffer: Any) -> int:
        num_bytes = super().readinto(buffer)
        unpacked, packed = self.tell(), self._packed.tell()
        if unpacked > max(_ALWAYS_UNPACKED, MAX_COMPRESSION_RATIO * packed):
            raise DataError(
                f"{self._location} unpacks to {unpacked} bytes from {packed}, which no file of drawings does; "
                "fetch it again"
            )
        return num_bytes
