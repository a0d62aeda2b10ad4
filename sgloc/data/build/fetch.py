"""Source files that are not on this machine, for the time that they are read."""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sgloc.data.formats.form import form_of
from sgloc.data.formats.sources import SourceFile
from sgloc.errors import DataError
from sgloc.masking import mask
from sgloc.storage import Retries, is_local
from sgloc.storage.download import download


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
    def open(self, source: SourceFile) -> Iterator[str]:
        """Give the local path of a source file, downloaded if need be; or the location of a folder's files.

        Raises:
            DataError: if it cannot be downloaded; for a DataError that is raised inside, one that names the source.
        """
        if is_local(source.location) or source.form.of_folder:
            yield source.location
            return
        with contextlib.ExitStack() as stack:
            folder = self.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="sgloc-downloads-"))
            Path(folder).mkdir(parents=True, exist_ok=True)
            # Files of the same name may lie in different folders.
            digest = hashlib.sha256(mask(source.location).encode()).hexdigest()
            path = Path(folder, f"{digest[:16]}-{source.name}")
            # What is there is whole: a build that was killed had got so far, or one before kept it.
            if not path.exists():
                fetch(source.location, str(path))
            try:
                yield str(path)
            except DataError as error:
                path.unlink()
                raise DataError(str(error).replace(str(path), source.location)) from error
            if not self.keep:
                path.unlink()


def fetch(url: str, path: str, retries: Retries | None = None) -> None:
    """Download a file of drawings, if its beginning is what its ending promises; see `download`."""
    form = form_of(url)
    download(url, path, retries=retries, check=lambda head: None if form is None else form.check(head, url))
