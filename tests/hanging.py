"""A store that stops answering: a file system of its own behind hang://, over a local folder."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

# What part of a path makes an operation on it hang for ever, from when which path exists; and the file that tells so.
AT, AFTER, MARK = "SGLOC_TEST_HANG_AT", "SGLOC_TEST_HANG_AFTER", "SGLOC_TEST_HANG_MARK"


class HangingFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Files of this machine under URLs like hang:///tmp/folder, none of which this package knows to be local."""

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
    """Lets hang:// be known to processes that the test starts; gives the file that is there once something hangs."""
    # As an installed package tells fsspec of its file systems.
    about = tmp_path / "site/hanging-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[fsspec.specs]\nhang = tests.hanging:HangingFileSystem\n")
    root = str(Path(__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(about.parent), root, os.environ.get("PYTHONPATH", "")]))
    mark = tmp_path / "hangs"
    monkeypatch.setenv(MARK, str(mark))
    return mark
