"""The cluster that tests share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.daemons import missing_programs
from tests.slurm.sources import Mirror
from tests.train.launch import losses, run


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real Slurm, stopped in the end, also when the tests are killed."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"no {', '.join(missing)}; `make system-packages` as root installs Slurm")
    if os.geteuid() != 0:
        pytest.skip("a Slurm of one's own needs root; run the tests as root, in a container for instance")
    with Cluster() as started:
        yield started


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """Enough drawings that a task can be stopped while it builds."""
    return Mirror(tmp_path_factory.mktemp("mirror"), 6000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to submit from, with a virtual environment."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory, picture_shards: str) -> list[tuple[float, ...]]:
    """The losses of 40 steps of four ranks on one machine that nothing disturbed."""
    return losses(run(tmp_path_factory.mktemp("unbroken") / "run", picture_shards, 4, "--train.num_steps", "40"))
