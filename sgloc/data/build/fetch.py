"""Source files that are not on this machine, for the time that they are read."""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sgloc.data.build.part import source_name
from sgloc.data.build.plan import is_local
from sgloc.data.formats.sources import SourceFile
from sgloc.data.remote.download import download
from sgloc.errors import DataError
from sgloc.masking import mask


@dataclass(frozen=True)
class Downloads:
    """Where downloaded source files lie.

    Attributes:
        folder: local, made when it is needed; None: a temporary one for each file.
        keep: leave them there, so that a later build need not download them again.
    """

    folder: str | None = None
    keep: bool = False

    @contextlib.contextmanager
    def open(self, source: SourceFile, told: Callable[[str], None]) -> Iterator[str]:
        """Give the local path of a source file, downloaded if need be.

        Args:
            source: the file.
            told: is given a sentence about every retry.

        Raises:
            DataError: if it cannot be downloaded; for a DataError that is raised inside, one that names the source.
        """
        if is_local(source.location):
            yield source.location
            return
        with contextlib.ExitStack() as stack:
            folder = self.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="sgloc-downloads-"))
            Path(folder).mkdir(parents=True, exist_ok=True)
            # Files of the same name may lie in different folders.
            digest = hashlib.sha256(mask(source.location).encode()).hexdigest()
            path = Path(folder, f"{digest[:16]}-{source_name(source)}")
            # What is there is whole: a build that was killed had got so far, or one before kept it.
            if not path.exists():
                download(source.location, str(path), told=told)
            try:
                yield str(path)
            except DataError as error:
                path.unlink()
                raise DataError(str(error).replace(str(path), source.location)) from error
            if not self.keep:
                path.unlink()
