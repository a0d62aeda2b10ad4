"""The revision recorded by a run is the program's own, never that of an enclosing repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sgloc

_ASK = "from sgloc.train.record import versions; print(versions()['git'])"


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit_all(folder: Path) -> str:
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "all")
    return git(folder, "rev-parse", "HEAD")


def recorded(folder: Path, **environment: str) -> str:
    """Return the revision recorded by a process that imports the package from a folder."""
    variables = {**os.environ, "PYTHONPATH": str(folder), **environment}
    command = [sys.executable, "-P", "-c", _ASK]
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """An unrelated repository with a copy of the package deep inside."""
    packages = tmp_path / "other/.venv/site-packages"
    shutil.copytree(Path(sgloc.__file__).parent, packages / "sgloc", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "other/something").write_text("else")
    return tmp_path / "other"


def test_the_revision_is_not_that_of_a_repository_around_the_package(other: Path) -> None:
    packages = other / ".venv/site-packages"
    enclosing = commit_all(other)
    # No metadata yet from which the origin of this copy could be read.
    assert recorded(packages) == "unknown"
    metadata = packages / "sgloc-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sgloc\nVersion: 0.1.0\n")
    assert recorded(packages) == "release 0.1.0"
    (metadata / "direct_url.json").write_text('{"url": "x", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}')
    assert recorded(packages) == "abc123"
    assert enclosing not in ("unknown", "abc123")


def test_the_revision_is_that_of_the_program_s_own_repository(other: Path) -> None:
    packages = other / ".venv/site-packages"
    enclosing = commit_all(other)
    own = commit_all(packages)
    assert own != enclosing
    # GIT_DIR as set inside a hook of the other repository.
    assert recorded(packages, GIT_DIR=str(other / ".git")) == own
