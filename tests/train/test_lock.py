"""Locking of run folders: at most one run writes to a folder."""

import errno
from pathlib import Path

import pytest

from sgloc.errors import ConfigError
from sgloc.storage import only_writer


def test_a_local_folder_is_held_by_one_and_let_go(tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    with only_writer(run_dir) as claim:
        claim.check()
        with pytest.raises(ConfigError, match="another run is writing to"), only_writer(run_dir):
            pass
        claim.check()
    with only_writer(run_dir) as claim:
        claim.check()


@pytest.mark.parametrize("scheme", ["memory://", ""], ids=["memory", "disk"])
def test_where_there_are_no_locks_the_run_that_started_last_has_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    url = f"{scheme}{tmp_path}/run"
    with only_writer(url) as first:
        first.check()
        with only_writer(url) as second:
            second.check()
            with pytest.raises(ConfigError, match=r"another run has since been started in .*/run"):
                first.check()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write to .*file/run"), only_writer(str(tmp_path / "file/run")):
        pass
