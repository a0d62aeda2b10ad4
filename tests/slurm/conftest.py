"""Fixtures of the Slurm tests: the shared cluster, its input data and reference losses."""

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
    """A real Slurm cluster; it stops at the end of the session, even if the tests are killed."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"missing programs: {', '.join(missing)}; run `make system-packages` as root to install Slurm")
    if os.geteuid() != 0:
        pytest.skip("starting a private Slurm cluster needs root; run the tests as root, for example in a container")
    with Cluster() as started:
        yield started


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """A data set large enough for a task to be stopped during a build."""
    return Mirror(tmp_path_factory.mktemp("mirror"), 6000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to submit jobs from; its .venv links to the current environment."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory, picture_shards: str) -> list[tuple[float, ...]]:
    """The losses of 40 undisturbed steps of four ranks on one machine."""
    return losses(run(tmp_path_factory.mktemp("unbroken") / "run", picture_shards, 4, "--train.num_steps", "40"))
