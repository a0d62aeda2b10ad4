"""A checkpoint is committed or absent, and reading it never executes code from it (DESIGN contracts 4 and 7)."""

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgloc.errors import CheckpointError, DamagedCheckpointError
from sgloc.train.checkpoint.format import read_manifest
from sgloc.train.checkpoint.load import (
    checkpoint_steps,
    newest_checkpoint,
    read_checkpoint,
    refuse_other_tensors,
)
from sgloc.train.checkpoint.safetensors_io import header
from sgloc.train.checkpoint.writer import SaveError, share_out
from tests.checkpoints import (
    SHARD,
    change_manifest,
    find_checkpoint,
    flip_bit,
    load,
    make_manifest,
    replace_file,
    save_steps,
    single_process,
    step_path,
    truncate,
    write,
)
from tests.fuzzing import examples
from tests.logged import collected


@pytest.fixture(scope="module", autouse=True)
def _group() -> Iterator[None]:
    with single_process():
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 1 to 3; tests must not change it."""
    run_dir = tmp_path_factory.mktemp("saved")
    save_steps(run_dir, [1, 2, 3])
    return run_dir


@pytest.fixture
def run_dir(saved: Path, tmp_path: Path) -> Path:
    """A copy of `saved` for the test to damage."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


TENSORS = {
    "model.weight": torch.randn(7, 3),
    "half": torch.randn(4, 2).to(torch.bfloat16),
    "step": torch.tensor(3.0),
    "count": torch.tensor([2**62, -1]),
    "part": torch.randn(5, 4)[:, 1:3],
    "empty": torch.zeros(0, 4),
    "flags": torch.tensor([True, False, True]),
    "not/a/path": torch.tensor(0.1, dtype=torch.float64),
}


@pytest.mark.parametrize("url", ["{}", "memory://{}"], ids=["disk", "memory"])
def test_round_trip_to_the_bit(tmp_path: Path, url: str) -> None:
    manifest = make_manifest(step=123456789, state={"best_step": 7, "best_loss": 1.5})
    tensors = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    written = write(url.format(tmp_path), manifest, tensors)
    folder = url.format(tmp_path / "checkpoints/step-123456789")
    committed = read_checkpoint(folder)
    assert set(committed.files) == {SHARD}
    assert dataclasses.replace(committed, files={}) == written
    read = load(folder)
    assert read.keys() == TENSORS.keys()
    for name, tensor in read.items():
        assert (tensor.dtype, tensor.shape) == (TENSORS[name].dtype, TENSORS[name].shape)
        assert torch.equal(tensor, TENSORS[name]), name


def test_a_manifest_is_json_before_the_first_validation_too(tmp_path: Path) -> None:
    write(tmp_path, make_manifest(), {"model.weight": torch.zeros(2)})
    text = (step_path(tmp_path, 1) / "manifest.json").read_text()
    fields = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not valid JSON"))
    assert fields["state"]["best_loss"] is None
    assert "config_hash" not in fields


def test_a_checkpoint_of_the_version_before_is_read(tmp_path: Path) -> None:
    written = write(tmp_path, make_manifest(), {"model.weight": torch.ones(2)})
    folder = step_path(tmp_path, 1)

    def make_old(fields: dict[str, Any]) -> None:
        fields["state"]["best_loss"] = float("inf")
        fields |= {"version": 2, "config_hash": "0" * 64}

    change_manifest(folder, make_old)
    assert "Infinity" in (folder / "manifest.json").read_text()
    read = read_checkpoint(str(folder))
    assert (read.version, read.config, read.step) == (2, written.config, 1)
    assert load(str(folder))["model.weight"].tolist() == [1.0, 1.0]


def test_the_files_are_those_of_the_safetensors_library(tmp_path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    write(tmp_path, make_manifest(), tensors)
    path = step_path(tmp_path, 1) / SHARD
    read = safetensors.torch.load_file(path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in read.items())
    assert path.read_bytes() == safetensors.torch.save(tensors)


def test_what_is_not_committed_is_not_seen(run_dir: Path, logged: list[str]) -> None:
    newest = step_path(run_dir, 3)
    newest.rename(newest.with_name("step-00000003.tmp"))
    (step_path(run_dir, 2) / "manifest.json").unlink()
    shutil.copytree(step_path(run_dir, 1), newest.with_name("step-7"))
    shutil.copytree(step_path(run_dir, 1), newest.with_name("last"))
    assert checkpoint_steps(str(run_dir)) == [1]
    assert newest_checkpoint(str(run_dir)) == str(step_path(run_dir, 1))
    assert logged == []
    shutil.rmtree(step_path(run_dir, 1))
    assert newest_checkpoint(str(run_dir)) is None
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        find_checkpoint(str(run_dir))
    with pytest.raises(CheckpointError, match=r"step-00000002 is not a complete checkpoint: it has no manifest\.json"):
        read_checkpoint(str(step_path(run_dir, 2)))


@pytest.mark.parametrize("url", ["{}", "memory://{}"], ids=["disk", "memory"])
@pytest.mark.parametrize("phase", ["begin", "half", "written", "gathered", "manifest"])
def test_a_save_that_fails_leaves_nothing_and_can_be_done_again(
    tmp_path: Path, url: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = url.format(tmp_path / phase)
    tensors = {"model.weight": torch.ones(9)}
    write(run_dir, make_manifest(step=1), tensors)
    monkeypatch.setenv("SGLOC_FAILPOINT", f"checkpoint.{phase}:full:2")
    with pytest.raises(SaveError, match="No space left on device"):
        write(run_dir, make_manifest(step=2), tensors, keep=1)
    assert checkpoint_steps(run_dir) == [1]
    read_checkpoint(f"{run_dir}/checkpoints/step-00000001")
    write(run_dir, make_manifest(step=3), tensors, keep=1)
    assert checkpoint_steps(run_dir) == [3]
    if "memory" not in url:
        assert [path.name for path in (tmp_path / phase / "checkpoints").iterdir()] == ["step-00000003"]


@pytest.mark.parametrize("phase", ["renamed", "retained"])
def test_a_removal_that_fails_is_told_and_does_not_matter(
    run_dir: Path, phase: str, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setenv("SGLOC_FAILPOINT", f"checkpoint.{phase}:full:4")
    write(run_dir, make_manifest(step=4), {"model.weight": torch.ones(2)}, keep=1)
    assert len(logged) == 1
    assert "checkpoints ([Errno 28] No space left on device)" in logged[0]
    assert checkpoint_steps(str(run_dir)) == ([4, 3, 2, 1] if phase == "renamed" else [4, 2, 1])


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(run_dir: Path) -> None:
    truncate(step_path(run_dir, 3) / SHARD)
    (step_path(run_dir, 3) / "shard-00001-of-00002.safetensors").touch()
    write(run_dir, make_manifest(step=3), {"other": torch.ones(2)})
    assert sorted(path.name for path in step_path(run_dir, 3).iterdir()) == ["manifest.json", SHARD]
    assert torch.equal(load(step_path(run_dir, 3))["other"], torch.ones(2))


def hostile_header(length: int, header: object) -> Callable[[Path], None]:
    """Return a function that replaces the header of a tensor file and updates the manifest's checksum to match."""

    def replace(folder: Path) -> None:
        content = (folder / SHARD).read_bytes()
        text = json.dumps(header).encode().ljust(int.from_bytes(content[:8], "little"))
        replace_file(folder, SHARD, length.to_bytes(8, "little") + text + content[8 + len(text) :])

    return replace


def change_tensor(**changes: Any) -> Callable[[Path], None]:
    """Return a function that changes a tensor's entry in the manifest."""
    return lambda folder: change_manifest(folder, lambda fields: fields["tensors"]["model.weight"].update(changes))


def place(start: int, stop: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 3], "data_offsets": [start, stop]}


HEADER_LENGTH = len(header(share_out({"model.weight": torch.ones(2, 3), "model.bias": torch.ones(2)}, 1))) - 8
BIAS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGES: dict[str, Callable[[Path], object]] = {
    f"{SHARD} is damaged: its SHA-256 is": lambda folder: flip_bit(folder / SHARD, 8 * (HEADER_LENGTH + 12)),
    f"{SHARD} is damaged: its header does not": lambda folder: flip_bit(folder / SHARD, 99),
    rf"{SHARD} is damaged: \d+ bytes, not \d+": lambda folder: truncate(folder / SHARD),
    rf"{SHARD} is damaged: \d+ bytes, not \d+$": lambda folder: (folder / SHARD).write_bytes(
        (folder / SHARD).read_bytes() + b"more"
    ),
    f"{SHARD} is missing": lambda folder: (folder / SHARD).unlink(),
    r"manifest\.json cannot be read": lambda folder: truncate(folder / "manifest.json"),
    r"manifest\.json cannot be read \(maximum": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    r"manifest\.json is damaged: its SHA-256 is": lambda folder: (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace('"scale": 20.0', '"scale": 20.5')
    ),
    "is not a checkpoint of this program": lambda folder: (folder / "manifest.json").write_text("{}"),
    "is not a checkpoint of this program; ": lambda folder: (folder / "manifest.json").write_text("[2]"),
    r"manifest\.json is malformed \(scale: Field required": lambda folder: change_manifest(
        folder, lambda fields: fields.pop("scale")
    ),
    r"manifest\.json is malformed \(step: Input should be a valid integer": lambda folder: change_manifest(
        folder, lambda fields: fields.update(step="3")
    ),
    r"lists '\.\./step-00000001/x', which is not a file in its folder": lambda folder: change_manifest(
        folder, lambda fields: fields["files"].update({"../step-00000001/x": [1, ""]})
    ),
    "lists '/etc/hostname', which is not a file in its folder": lambda folder: change_manifest(
        folder, lambda fields: fields["files"].update({"/etc/hostname": [1, ""]})
    ),
    r"lists '\.\.', which is not a file in its folder": lambda folder: change_manifest(
        folder, lambda fields: fields["files"].update({"..": [1, ""]})
    ),
    "is in '/etc/hostname', which the checkpoint does not list": change_tensor(file="/etc/hostname"),
    r"tensor model\.weight is 'C64' \[2, 3\]": change_tensor(dtype="C64"),
    r"tensor model\.weight is 'F32' \[2, -3\]": change_tensor(shape=[2, -3]),
    r"malformed \(tensors\.model\.weight\.shape\.1: Input should be a valid integer": change_tensor(shape=[2, 1.5]),
    r"tensor model\.weight is 'F32' \[0, 4611686018427387904\]": change_tensor(shape=[0, 2**62]),
    "bytes does not match its tensors": change_tensor(shape=[2**29, 2**29]),
    "bytes does not match its tensors$": change_tensor(shape=[2, 30]),
    "its header does not match its tensors": change_tensor(shape=[3, 2]),
    # Header and manifest disagree although all checksums are right.
    "header does not": hostile_header(2**63 - 1, {"model.bias": BIAS, "model.weight": place(8, 32)}),
    "header does not match": hostile_header(HEADER_LENGTH, {"model.bias": BIAS, "model.weight": place(0, 24)}),
    "header does not match its": hostile_header(HEADER_LENGTH, {"model.bias": BIAS, "model.weight": place(8, 2**60)}),
    "header does not match its tensors": hostile_header(HEADER_LENGTH, {"../../x": BIAS, "model.weight": place(8, 32)}),
    "header does not match its tensors$": hostile_header(HEADER_LENGTH, []),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_the_newest_that_verifies_is_taken_and_those_skipped_are_named(
    run_dir: Path, message: str, logged: list[str]
) -> None:
    newest = step_path(run_dir, 3)
    DAMAGES[message](newest)
    with pytest.raises(DamagedCheckpointError, match=message):
        read_checkpoint(str(newest))
    assert newest_checkpoint(str(run_dir)) == str(step_path(run_dir, 2))
    assert len(logged) == 1
    assert logged[0].startswith(f"skipping checkpoint {newest}: ")
    truncate(step_path(run_dir, 2) / SHARD)
    truncate(step_path(run_dir, 1) / SHARD)
    assert newest_checkpoint(str(run_dir)) is None
    with pytest.raises(CheckpointError, match="is intact; all 3 are damaged"):
        find_checkpoint(str(run_dir))


def manifest_text(folder: Path) -> str:
    return (folder / "manifest.json").read_text()


@examples(300)
@given(where=st.floats(0, 1, exclude_max=True))
def test_a_flipped_bit_of_a_manifest_is_seen_or_changes_nothing(run_dir: Path, saved: Path, where: float) -> None:
    folder = step_path(run_dir, 3)
    content = manifest_text(step_path(saved, 3))
    (folder / "manifest.json").write_text(content)
    flip_bit(folder / "manifest.json", int(where * len(content) * 8))
    with collected() as logged:
        newest = newest_checkpoint(str(run_dir))
    if newest == str(folder):
        assert logged == []
        assert read_manifest(str(folder)) == read_manifest(str(step_path(saved, 3)))
    else:
        assert len(logged) == 1
        assert str(folder) in logged[0]
    find_checkpoint(str(run_dir))


@examples(200)
@given(where=st.floats(0, 1, exclude_max=True), cut=st.booleans())
def test_a_flipped_bit_or_a_cut_of_a_shard_is_seen(run_dir: Path, saved: Path, where: float, cut: bool) -> None:
    content = (step_path(saved, 3) / SHARD).read_bytes()
    path = step_path(run_dir, 3) / SHARD
    path.write_bytes(content[: int(where * len(content))] if cut else content)
    if not cut:
        flip_bit(path, int(where * len(content) * 8))
    with pytest.raises(DamagedCheckpointError, match=f"{SHARD} is damaged"):
        read_checkpoint(str(path.parent))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"version": 1, "format": "sgloc-checkpoint"},
            "has checkpoint version 1, but this program reads version 3; finish that run",
        ),
        ({"version": 4}, "has checkpoint version 4, but this program reads version 3"),
    ],
)
def test_another_version_is_refused_and_not_skipped(run_dir: Path, fields: dict[str, Any], message: str) -> None:
    folder = step_path(run_dir, 3)
    if fields["version"] == 1:
        (folder / "manifest.json").write_text(json.dumps(fields))
    else:
        change_manifest(folder, lambda manifest: manifest.update(fields))
    for refused in (lambda: read_checkpoint(str(folder)), lambda: newest_checkpoint(str(run_dir))):
        with pytest.raises(CheckpointError, match=message):
            refused()


class Touch:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("file", [SHARD, "manifest.json"])
def test_a_program_in_place_of_a_file_is_refused_and_not_executed(run_dir: Path, file: str) -> None:
    folder = step_path(run_dir, 3)
    program = pickle.dumps(Touch(folder / "touched"))
    if file == SHARD:
        replace_file(folder, SHARD, program)
    else:
        (folder / file).write_bytes(program)
    with pytest.raises(DamagedCheckpointError, match=f"{file} (is damaged|cannot be read)"):
        read_checkpoint(str(folder))
    assert not (folder / "touched").exists()
    # Unpickling does create the file; otherwise the test would prove nothing.
    pickle.loads(program)  # noqa: S301
    assert (folder / "touched").exists()


def test_tensors_of_another_model_are_named(saved: Path) -> None:
    theirs = read_manifest(str(step_path(saved, 3))).tensors
    for ours, message in (
        ({"model.bias": torch.zeros(2), "scale": torch.zeros(1)}, r"scale is missing there and float32 \[1\] here;"),
        ({"model.bias": torch.zeros(3, 1)}, r"model\.bias is float32 \[2\] there and float32 \[3, 1\] here; set"),
        ({"model.bias": torch.zeros(2).double()}, r"model\.bias is float32 \[2\] there and float64 \[2\] here; set"),
    ):
        with pytest.raises(CheckpointError, match=f"^there belongs to another model: {message}"):
            refuse_other_tensors("there", theirs, ours, exactly=False)
    refuse_other_tensors("there", theirs, {"model.bias": torch.zeros(2)}, exactly=False)
    with pytest.raises(CheckpointError, match=r"model\.weight is float32 \[2, 3\] there and missing here;"):
        refuse_other_tensors("there", theirs, {"model.bias": torch.zeros(2)})


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(SaveError, match="checkpoints"):
        save_steps(tmp_path, [1])


@given(sizes=st.lists(st.integers(0, 5000), max_size=60), world_size=st.integers(1, 9))
def test_bytes_are_shared_out_evenly_and_the_same_whoever_asks(sizes: list[int], world_size: int) -> None:
    layout = {f"tensor {number}": torch.empty(size, device="meta") for number, size in enumerate(sizes)}
    entries = share_out(layout, world_size)
    assert share_out(dict(reversed(layout.items())), world_size) == entries
    assert entries.keys() == layout.keys()
    loads = {f"shard-{rank:05d}-of-{world_size:05d}.safetensors": 0 for rank in range(world_size)}
    for name, entry in entries.items():
        assert (entry.dtype, entry.shape) == ("F32", list(layout[name].shape))
        loads[entry.file] += entry.num_bytes
    assert max(loads.values()) - min(loads.values()) <= 4 * max(sizes, default=0)
