"""Permanently unreadable shards: training stops, or continues without them, consistently on all ranks."""

import dataclasses
import shutil
from pathlib import Path
from typing import Literal

import pytest

from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import load_manifest
from sgloc.errors import DataError
from sgloc.models.sketchgloc.config import Config
from sgloc.train.checkpoint.load import read_checkpoint
from tests.checkpoints import find_checkpoint
from tests.train.launch import losses, run
from tests.train.runs import make_config, open_run, records, train

SKIP = ("--data.bad_shards", "skip", "--data.read_attempts", "1")


@pytest.fixture
def shards(sample_shards: str, tmp_path: Path) -> Path:
    """A private copy for the test to damage: 240 training drawings in four files, 40 validation drawings in one."""
    shutil.copytree(sample_shards, tmp_path / "shards")
    return tmp_path / "shards"


def damage(shards: Path, split: str, number: int) -> str:
    """Flip a bit in a shard's last block and return the shard's name."""
    shard = load_manifest(str(shards)).splits[split].shards[number]
    content = bytearray((shards / shard.path).read_bytes())
    content[shard.block_offsets[-1] + shard.block_sizes[-1] // 2] ^= 16
    (shards / shard.path).write_bytes(content)
    return shard.path


def config_of(shards: Path, run_dir: Path, policy: Literal["stop", "skip"], num_steps: int = 12) -> Config:
    config = make_config(str(shards), run_dir, num_steps=num_steps, checkpoint_every=5)
    data = dataclasses.replace(config.data, bad_shards=policy, read_attempts=1)
    return dataclasses.replace(config, data=data)


@pytest.mark.parametrize(("split", "number"), [("train", 2), ("valid", 0)])
def test_a_bad_shard_stops_the_run_and_says_what_to_do(shards: Path, tmp_path: Path, split: str, number: int) -> None:
    name = damage(shards, split, number)
    with pytest.raises(DataError, match=rf"shard .*{name} .*set data\.bad_shards to skip"):
        train(config_of(shards, tmp_path / "run", "stop"), "auto")


def test_a_bad_shard_is_skipped_and_counted(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = damage(shards, "train", 2)
    manifest = load_manifest(str(shards))
    # 15 steps of 16 sketches make exactly one epoch, so each sketch of the bad shard is skipped once.
    train(config_of(shards, tmp_path / "run", "skip", num_steps=15), "auto")
    assert f"all ranks skip shard {name}, which stays unreadable or damaged" in capsys.readouterr().err
    last = records(tmp_path / "run", "train")[-1]
    assert last["skipped_sketches"] == manifest.splits["train"].shards[2].num_sketches
    state = read_checkpoint(find_checkpoint(str(tmp_path / "run"))).state
    assert state["skipped_shards"] == [name]
    assert state["num_skipped_sketches"] == last["skipped_sketches"]


def test_a_run_that_skips_is_resumed_to_the_bit(shards: Path, tmp_path: Path) -> None:
    damage(shards, "train", 2)
    train(config_of(shards, tmp_path / "whole", "skip"), "auto")
    train(config_of(shards, tmp_path / "parts", "skip", num_steps=7), "auto")
    train(config_of(shards, tmp_path / "parts", "skip"), "auto")
    whole, parts = (losses(records(tmp_path / name, "train")) for name in ("whole", "parts"))
    assert parts == whole


def test_a_bad_validation_shard_is_skipped(
    sample_shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = str(Path(sample_shards).parent / "npz")
    build_shards(sources, str(tmp_path / "shards"), BuildOptions(sketches_per_shard=16))
    train(config_of(tmp_path / "shards", tmp_path / "sound", "stop", num_steps=4), "auto")
    name = damage(tmp_path / "shards", "valid", 1)
    train(config_of(tmp_path / "shards", tmp_path / "skipping", "skip", num_steps=4), "auto")
    assert f"shard {name} is still unreadable; validation continues without it" in capsys.readouterr().err
    sound, skipping = (records(tmp_path / run, "validation")[0]["loss"] for run in ("sound", "skipping"))
    assert skipping != sound
    # The loss must be the mean over the remaining sketches.
    with open_run(config_of(tmp_path / "shards", tmp_path / "sound", "stop", num_steps=4), "auto") as session:
        validation = session.validation
        validation.chosen = validation.chosen[validation.reader.shard_of(validation.chosen) != 1]
        expected = validation(session.engine.model)
    assert expected is not None
    assert skipping == expected["loss"]


def test_validation_on_nothing_is_refused(shards: Path, tmp_path: Path) -> None:
    config = config_of(shards, tmp_path / "run", "skip", num_steps=4)
    damage(shards, "valid", 0)
    # It is the only validation shard, so nothing is left.
    with pytest.raises(DataError, match="no validation sketch is left without shard valid-"):
        train(config, "auto")


def test_all_ranks_skip_alike(shards: Path, tmp_path: Path) -> None:
    damage(shards, "train", 2)
    (shards / load_manifest(str(shards)).splits["train"].shards[0].path).unlink()
    one = run(tmp_path / "one", str(shards), 1, *SKIP, "--train.num_steps", "16")
    three = run(tmp_path / "three", str(shards), 3, *SKIP, "--train.num_steps", "16")
    assert [line["loss"] for line in three] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    assert [line["skipped_sketches"] for line in three] == [line["skipped_sketches"] for line in one]
    assert one[-1]["skipped_sketches"] > 0
