"""Opening of local and remote drawing files, with protection against decompression bombs."""

import contextlib
import gzip
import io
from collections.abc import Iterator
from typing import IO, Any

from sgloc.errors import DataError
from sgloc.storage import open_file

# Real drawings decompress to about five times their compressed size. Small files are exempt, since many equal drawings
# compress to few bytes.
MAX_COMPRESSION_RATIO = 200
_ALWAYS_UNPACKED = 2**20
_BUFFER_BYTES = 2**18


@contextlib.contextmanager
def open_unpacked(location: str) -> Iterator[io.BufferedReader]:
    """Open a file for sequential reading, decompressed if its name ends in .gz. Use it inside `reading`.

    Args:
        location: local path or fsspec URL.

    Raises:
        DataError: while reading, if the compression ratio is far above that of drawings.
    """
    with open_file(location) as packed:
        raw = _Unpacked(location, packed) if location.endswith(".gz") else packed
        with io.BufferedReader(raw, _BUFFER_BYTES) as stream:
            yield stream


class _Unpacked(gzip.GzipFile):
    """A gzip reader that refuses compression ratios far above those of drawings."""

    def __init__(self, location: str, packed: IO[bytes]) -> None:
        super().__init__(fileobj=packed)
        self._location, self._packed = location, packed

    def readinto(self, buffer: Any) -> int:
        num_bytes = super().readinto(buffer)
        unpacked, packed = self.tell(), self._packed.tell()
        if unpacked > max(_ALWAYS_UNPACKED, MAX_COMPRESSION_RATIO * packed):
            raise DataError(
                f"{self._location} decompresses to {unpacked} bytes from {packed}, which is implausible for drawings; "
                "download it again"
            )
        return num_bytes
