"""Temporary downloads of remote source files."""

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
    """Storage of downloaded source files.

    Attributes:
        folder: local folder, created when needed; None uses a temporary folder per file.
        keep: whether to keep the files, so that a later build need not download them again.
    """

    folder: str | None = None
    keep: bool = False

    @contextlib.contextmanager
    def open(self, source: SourceFile) -> Iterator[str]:
        """Yield the local path of a source file, downloading it if necessary.

        Sources that are folders are not downloaded; their location is yielded unchanged.

        Raises:
            DataError: if the download fails. A DataError raised inside the context is raised again with the source's
                location in place of the local path.
        """
        if is_local(source.location) or source.form.of_folder:
            yield source.location
            return
        with contextlib.ExitStack() as stack:
            folder = self.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="sgloc-downloads-"))
            Path(folder).mkdir(parents=True, exist_ok=True)
            # The prefix distinguishes files of the same name from different folders.
            digest = hashlib.sha256(mask(source.location).encode()).hexdigest()
            path = Path(folder, f"{digest[:16]}-{source.name}")
            # An existing file is always complete: it was left by an interrupted build or kept by an earlier one.
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
    """Download a file of drawings, checking that its first bytes match its ending; see `download`."""
    form = form_of(url)
    download(url, path, retries=retries, check=lambda head: None if form is None else form.check(head, url))
