"""Fixtures and hooks for all tests."""

import collections
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.sketch.synthetic import CATEGORIES as SYNTHETIC
from sgloc.sketch.synthetic import write_sample

# Imported so that pytest finds the fixture.
from tests.commands import said  # noqa: F401
from tests.drawings import make_drawings, write_npz

# Imported so that pytest finds the fixtures of real servers.
from tests.faulty import faulty  # noqa: F401
from tests.fuzzing import register_profiles
from tests.hanging import hanging  # noqa: F401
from tests.identifiers import name_parameter
from tests.logged import logged  # noqa: F401
from tests.servers import nginx, s3, s3_endpoint  # noqa: F401

register_profiles()


# Variables set by a user's shell, a launcher or a Slurm job, which the processes started by tests must not inherit.
_OTHERS = (
    "WANDB_",
    "SLURM_",
    "TORCHELASTIC_",
    "RANK",
    "LOCAL_",
    "WORLD_SIZE",
    "MASTER_",
    "SGLOC_DEBUG",
    "SGLOC_FAIL",
    "SGLOC_LOG",
)


def pytest_configure() -> None:
    """Restore the signals that nohup and background jobs ignore, and drop inherited variables."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in list(os.environ):
        if name.startswith(_OTHERS):
            del os.environ[name]


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keep test ids independent of the machine, the time and the hash seed."""
    return name_parameter(val, argname)


def pytest_runtest_setup() -> None:
    """Seed the global generators, so that unseeded draws do not depend on the tests that ran before."""
    random.seed(0)
    torch.manual_seed(0)


def _group(nodeid: str) -> str:
    """Return the scheduling group of a test: its file, or one group for all tests that share a Slurm."""
    path = nodeid.partition("::")[0]
    return "slurm" if path.startswith("tests/slurm/") else path


class _ByGroup(LoadScopeScheduling):  # type: ignore[misc]
    """Assign whole groups to a process; pytest-xdist's own groups, set by a mark, have no effect with pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Schedule by group, so that module fixtures are built once."""
    return _ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the groups with the most slow tests first."""
    num_slow = collections.Counter(_group(item.nodeid) for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -num_slow[_group(item.nodeid)])


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Small tensors gain nothing from more threads, and tests share the machine.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of cat and alarm clock with 12 + 2 + 6 drawings each; read-only."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    for seed, category in enumerate(("cat", "alarm clock")):
        rows = [drawing.stroke3 for drawing in make_drawings(20, seed=seed, points=5)]
        write_npz(folder / f"{category}.npz", train=rows[:12], valid=rows[12:14], test=rows[14:])
    build_shards(str(folder), str(folder / "shards"))
    return str(folder / "shards")


@pytest.fixture(scope="session")
def sample_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of 8 categories with 30 + 5 + 5 drawings of six points each, so that training is fast."""
    folder: Path = tmp_path_factory.mktemp("sample")
    (folder / "npz").mkdir()
    for seed, category in enumerate(SYNTHETIC):
        rows = [drawing.stroke3 for drawing in make_drawings(40, seed=seed, points=5)]
        write_npz(folder / "npz" / f"{category}.npz", train=rows[:30], valid=rows[30:35], test=rows[35:])
    build_shards(str(folder / "npz"), str(folder / "shards"), BuildOptions(sketches_per_shard=64))
    return str(folder / "shards")


@pytest.fixture(scope="session")
def picture_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of a small synthetic sample of recognisable drawings: 8 categories of 30 + 5 + 5."""
    folder: Path = tmp_path_factory.mktemp("pictures")
    files = write_sample(str(folder / "npz"), num_train=30, num_valid=5, num_test=5, seed=0)
    build_shards(files, str(folder / "shards"), BuildOptions(sketches_per_shard=64))
    return str(folder / "shards")
