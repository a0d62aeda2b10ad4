"""A store that stops responding: a file system registered as hang://, backed by a local folder."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

# Operations on paths that contain AT hang forever once the path AFTER exists, and create the file MARK.
AT, AFTER, MARK = "SGLOC_TEST_HANG_AT", "SGLOC_TEST_HANG_AFTER", "SGLOC_TEST_HANG_MARK"


class HangingFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Local files under URLs such as hang:///tmp/folder, which the package does not recognise as local."""

    protocol = "hang"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._local = LocalFileSystem()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).removeprefix("hang://").strip("/")

    def _at(self, path: str) -> str:
        path = self._strip_protocol(path)
        wanted = os.environ.get(AT, "")
        if wanted and wanted in path and Path(os.environ.get(AFTER, "/")).exists():
            Path(os.environ[MARK]).touch()
            threading.Event().wait()
        return path

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        return self._local.ls(self._at(path), detail=detail)

    def info(self, path: str, **_: Any) -> Any:
        return self._local.info(self._at(path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._local.makedirs(self._at(path), exist_ok=exist_ok)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        self._local.cp_file(self._at(path1), self._at(path2))

    def rm_file(self, path: str) -> None:
        self._local.rm_file(self._at(path))

    def rmdir(self, path: str) -> None:
        self._local.rmdir(self._at(path))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return Path(self._at(path)).open(mode)


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make hang:// available to processes started by the test; return the file that appears once something hangs."""
    # Register the file system through an entry point, as an installed package would.
    about = tmp_path / "site/hanging-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[fsspec.specs]\nhang = tests.hanging:HangingFileSystem\n")
    root = str(Path(__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(about.parent), root, os.environ.get("PYTHONPATH", "")]))
    mark = tmp_path / "hangs"
    monkeypatch.setenv(MARK, str(mark))
    return mark
