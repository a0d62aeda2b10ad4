"""Checkpoints that several ranks write and read collectively."""

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from sgloc.dist import Group
from sgloc.errors import CheckpointError, DamagedCheckpointError
from sgloc.train.checkpoint import writer
from sgloc.train.checkpoint.format import CheckpointManifest, read_manifest
from sgloc.train.checkpoint.load import (
    checkpoint_folders,
    checkpoint_steps,
    first_whole,
    read_checkpoint,
    spread_tensors,
)
from sgloc.train.checkpoint.writer import SaveError, Writer, share_out
from tests.checkpoints import flip_bit, load, make_manifest, step_path
from tests.forking import FORKING
from tests.logged import collected
from tests.patience import PATIENCE

pytestmark = pytest.mark.slow

SIZES = [4000, 3000, 2000, 1000, 1000, 10, 1, 0]


def tensors(step: int) -> dict[str, Tensor]:
    """Return the tensors that all ranks hold at a step."""
    values = {f"weight {number}": torch.arange(size) * 0.5 + step for number, size in enumerate(SIZES)}
    return {**values, "count": torch.tensor(step), "half": torch.full((3, 2), step, dtype=torch.bfloat16)}


class Rank:
    """One of several ranks that save and load together; each method is called on all ranks."""

    def __init__(self, rank: int, world_size: int, folder: Path) -> None:
        self.run_dir, self.group = folder / "run", Group(torch.device("cpu"), 60.0).separate()
        self.writer = Writer(str(self.run_dir), self.group, 9)
        self.rank, self.world_size = rank, world_size

    def write(self, step: int, whole: dict[str, Tensor]) -> CheckpointManifest:
        entries = share_out(whole, self.world_size)
        mine = f"shard-{self.rank:05d}-of-{self.world_size:05d}.safetensors"
        own = {name: tensor for name, tensor in whole.items() if entries[name].file == mine}
        manifest = make_manifest(step=step, world_size=self.world_size, tensors=entries)
        self.writer.write(manifest, own)
        return manifest

    def load(self, folder: str) -> dict[str, Tensor]:
        manifest = self.group.on_rank_0(lambda: read_manifest(folder))
        return dict(spread_tensors(folder, manifest, tensors(0), self.group))

    def all_ranks_write_and_read(self) -> None:
        manifest = self.write(1, tensors(1))
        self.write(3, tensors(3))
        folder = str(step_path(self.run_dir, 3))
        committed = read_checkpoint(folder)
        assert dataclasses.replace(committed, files={}, step=1) == manifest
        assert len(committed.files) == self.world_size
        sizes = [size for size, _ in committed.files.values()]
        assert max(sizes) < 1.2 * committed.num_bytes / self.world_size
        self.equal(self.load(folder), 3)

    def equal(self, read: dict[str, Tensor], step: int) -> None:
        assert read.keys() == tensors(step).keys()
        assert all(torch.equal(tensor, tensors(step)[name]) for name, tensor in read.items())

    def a_rank_that_fails_fails_them_all(self) -> None:
        for place, victim in (("half", 1), ("written", self.world_size - 1), ("gathered", 0), ("begin", 1)):
            os.environ["SGLOC_FAILPOINT"] = f"checkpoint.{place}:full:4:{victim}"
            with pytest.raises(SaveError, match=rf"^rank {victim}: \[Errno 28\] No space left on device$"):
                self.write(4, tensors(4))
            assert checkpoint_steps(str(self.run_dir)) == [3, 1]
        del os.environ["SGLOC_FAILPOINT"]

    def a_rank_that_owns_nothing_writes_no_file(self) -> None:
        self.write(5, {"weight 0": torch.ones(4)})
        assert len(read_checkpoint(str(step_path(self.run_dir, 5))).files) == 1
        with pytest.raises(CheckpointError, match=r"weight 0 is float32 \[4\] there and"):
            self.load(str(step_path(self.run_dir, 5)))
        self.group.gather(None)
        if self.rank == 0:
            shutil.rmtree(step_path(self.run_dir, 5))
        self.group.gather(None)

    def all_ranks_skip_what_is_damaged(self) -> None:
        if self.rank == 0:
            last = max(step_path(self.run_dir, 3).glob("*.safetensors"))
            # The last byte of the last file: all ranks must discard everything they have read before.
            flip_bit(last, 8 * last.stat().st_size - 1)
        self.group.gather(None)
        with pytest.raises(DamagedCheckpointError, match="is damaged: its SHA-256") as caught:
            self.load(str(step_path(self.run_dir, 3)))
        assert caught.value.told == (self.rank != 0)
        with collected() as told:
            found = first_whole(checkpoint_folders(str(self.run_dir)), self.load)
        assert found is not None
        assert found[0] == str(step_path(self.run_dir, 1))
        self.equal(found[1], 1)
        assert [sentence.startswith("skipping checkpoint ") for sentence in told] == [True]

    def a_folder_that_not_all_ranks_share_is_told(self) -> None:
        writer._LATE_SECONDS = 0.3
        mine = self.run_dir.with_name(f"of-rank-{self.rank}")
        self.writer = Writer(str(mine), self.group, 9)
        with pytest.raises(SaveError, match=r"cannot see shard-00001-of-.* that all machines"):
            self.write(1, tensors(1))


def be_a_rank(rank: int, world_size: int, folder: Path) -> None:
    """Run all checks in one of the processes."""
    torch.set_num_threads(1)
    os.environ["RANK"] = str(rank)
    store = dist.FileStore(str(folder / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    with contextlib.ExitStack() as stack:
        stack.callback(dist.destroy_process_group)
        one = Rank(rank, world_size, folder)
        stack.callback(one.group.close)
        one.all_ranks_write_and_read()
        one.a_rank_that_fails_fails_them_all()
        one.a_rank_that_owns_nothing_writes_no_file()
        one.all_ranks_skip_what_is_damaged()
        one.a_folder_that_not_all_ranks_share_is_told()


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_write_and_read_together(tmp_path: Path, world_size: int) -> None:
    ranks = [FORKING.Process(target=be_a_rank, args=(rank, world_size, tmp_path)) for rank in range(world_size)]
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(PATIENCE)
        assert [process.exitcode for process in ranks] == [0] * world_size
    finally:
        for process in ranks:
            process.kill()
    # A single process reads the checkpoint of several ranks.
    folder = str(step_path(tmp_path / "run", 1))
    read = load(folder)
    assert all(torch.equal(tensor, tensors(1)[name]) for name, tensor in read.items())
