"""Ranks started with different options, versions or shards are refused at the start; the error names the difference."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgloc.data.manifest import load_manifest
from sgloc.dist import Group
from sgloc.errors import ConfigError
from sgloc.models.sketchgloc.config import Config, TrainConfig
from sgloc.train.faults import refuse_other_ranks
from tests.checkpoints import single_process
from tests.patience import PATIENCE
from tests.ports import free_port


@pytest.fixture
def group() -> Iterator[Group]:
    """A process group of one rank."""
    with single_process() as one:
        yield one


def gather(monkeypatch: pytest.MonkeyPatch, change: dict[str, object]) -> None:
    """Make `Group.gather` report a second rank whose values equal those of rank 0, except for `change`."""
    monkeypatch.setattr(Group, "gather", lambda _, mine: [mine, {**mine, **change}])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train.seed": 7}, "rank 1 has train.seed = 7, rank 0 has 0"),
        ({"train.num_steps": 7}, "rank 1 has train.num_steps = 7, rank 0 has 100000"),
        ({"model.encoder.cell": "hyper"}, "rank 1 has model.encoder.cell = hyper, rank 0 has lstm"),
        ({"versions.deepspeed": "1.0"}, r"rank 1 has versions.deepspeed = 1\.0, rank 0 has None"),
        ({"versions.torch": "1.0"}, r"rank 1 has versions.torch = 1\.0, rank 0 has 2"),
        ({"manifest.scale": 1.5}, r"rank 1 has manifest.scale = 1\.5, rank 0 has "),
        ({"manifest.train.num_sketches": 1}, "rank 1 has manifest.train.num_sketches = 1, rank 0 has "),
        ({"manifest.identity": "0"}, "rank 1 has manifest.identity = 0, rank 0 has "),
    ],
)
def test_what_differs_is_named(
    tiny_shards: str, group: Group, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], told: str
) -> None:
    manifest = load_manifest(tiny_shards)
    gather(monkeypatch, {})
    refuse_other_ranks(Config(), manifest, {"torch": "2"}, group)
    gather(monkeypatch, change)
    with pytest.raises(ConfigError, match=told):
        refuse_other_ranks(Config(), manifest, {"torch": "2"}, group)


def test_every_option_but_places_is_compared(tiny_shards: str, group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: dict[str, object] = {}

    def gather_all(_: Group, mine: dict[str, object]) -> list[dict[str, object]]:
        compared.update(mine)
        return [mine]

    monkeypatch.setattr(Group, "gather", gather_all)
    refuse_other_ranks(Config(), load_manifest(tiny_shards), {}, group)
    places = {"data.path", "data.cache", "train.init_from"}
    names = {f"train.{field.name}" for field in dataclasses.fields(TrainConfig)}
    assert names - places <= compared.keys()
    assert not places & compared.keys()


def start_rank(rank: int, port: int, shards: Path, run_dir: Path, *options: str) -> "subprocess.Popen[str]":
    """Start one of two ranks as a user would by hand, without torchrun."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in place.items()}}
    words = (f"--data.path={shards}", f"--train.run={run_dir}", "--train.device=cpu", *options)
    return subprocess.Popen(
        [sys.executable, "-m", "sgloc", "train", *words], env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", ["config", "manifest", "unreadable"])
def test_ranks_that_differ_do_not_start(sample_shards: str, tiny_shards: str, tmp_path: Path, case: str) -> None:
    own = Path(shutil.copytree(tiny_shards if case == "manifest" else sample_shards, tmp_path / "own"))
    if case == "unreadable":
        (own / "manifest.json").unlink()
    options = ("--train.seed", "7") if case == "config" else ()
    told = {
        "config": "rank 1 has train.seed = 7, rank 0 has 0; start all ranks with the same",
        "manifest": "rank 1 has manifest.",
        "unreadable": "manifest.json",
    }[case]
    port = free_port()
    ranks = [
        start_rank(0, port, Path(sample_shards), tmp_path / "run"),
        start_rank(1, port, own, tmp_path / "run", *options),
    ]
    try:
        errors = [rank.communicate(timeout=PATIENCE)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [2, 2]
    said = [line.removeprefix("rank 1: ") for error in errors for line in error.splitlines()]
    lines = [line for line in said if line.startswith("sgloc train: ")]
    assert len(lines) == 1, errors
    assert told in lines[0]
    assert not (tmp_path / "run").exists()
