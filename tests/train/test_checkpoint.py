"""A checkpoint is committed or absent, and nothing is executed from it (DESIGN contracts 4 and 7)."""

import dataclasses
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata

from sgloc.errors import CheckpointError
from sgloc.train.checkpoint import (
    find_checkpoint,
    load_tensors,
    newest_checkpoint,
    read_checkpoint,
    refuse_other_tensors,
    save_checkpoint,
)
from sgloc.train.checkpoint.manifest import checkpoint_steps
from tests.checkpoints import (
    change_manifest,
    flip_bit,
    make_manifest,
    replace_file,
    save_steps,
    single_process,
    step_path,
    truncate,
)

TENSOR_FILE = "__0_0.distcp"


@pytest.fixture(scope="module", autouse=True)
def _group() -> Iterator[None]:
    with single_process():
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 1 to 3, of which nothing may be changed."""
    run_dir = tmp_path_factory.mktemp("saved")
    save_steps(run_dir, [1, 2, 3])
    return run_dir


@pytest.fixture
def run_dir(saved: Path, tmp_path: Path) -> Path:
    """The same, to be spoiled."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def load(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Check the checkpoint and read tensors of these names, types and shapes from it, as a run does."""
    manifest = read_checkpoint(str(folder))
    read = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    refuse_other_tensors(str(folder), manifest, read)
    load_tensors(str(folder), manifest, read)
    return read


@pytest.mark.parametrize("url", ["{}", "memory://{}"])
def test_round_trip_to_the_bit(tmp_path: Path, url: str) -> None:
    tensors = {
        "weight": torch.randn(7, 3),
        "half": torch.randn(4, 2).to(torch.bfloat16),
        "step": torch.tensor(3.0),
        "count": torch.tensor([2**62, -1]),
        "shared": torch.randn(5, 4)[:, 1:3],
        "empty": torch.zeros(0, 4),
    }
    manifest = make_manifest(step=12345678, state={"best_step": None, "best_loss": float("inf")})
    save_checkpoint(url.format(tmp_path), manifest, tensors, keep=1, best_step=None)
    folder = url.format(step_path(tmp_path, 12345678))
    committed = read_checkpoint(folder)
    assert dataclasses.replace(committed, files={}) == manifest
    assert set(committed.files) == {".metadata", TENSOR_FILE}
    read = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    refuse_other_tensors(folder, committed, read)
    load_tensors(folder, committed, read)
    for name, tensor in read.items():
        assert torch.equal(tensor, tensors[name]), name


def test_what_is_not_committed_is_not_seen(run_dir: Path) -> None:
    newest = step_path(run_dir, 3)
    newest.rename(newest.with_name("step-00000003.tmp"))
    (step_path(run_dir, 2) / "manifest.json").unlink()
    shutil.copytree(step_path(run_dir, 1), newest.with_name("step-7"))
    shutil.copytree(step_path(run_dir, 1), newest.with_name("last"))
    told: list[str] = []
    assert checkpoint_steps(str(run_dir)) == [1]
    assert newest_checkpoint(str(run_dir), told.append) == str(step_path(run_dir, 1))
    assert told == []
    shutil.rmtree(step_path(run_dir, 1))
    assert newest_checkpoint(str(run_dir), told.append) is None
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        find_checkpoint(str(run_dir), told.append)
    with pytest.raises(CheckpointError, match=r"step-00000002 is not a complete checkpoint: it has no manifest\.json"):
        read_checkpoint(str(step_path(run_dir, 2)))


def test_a_save_that_is_cut_short_leaves_nothing_and_can_be_done_again(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dcp, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            save_steps(run_dir, [4])
    assert step_path(run_dir, 4).with_suffix(".tmp").exists()
    assert checkpoint_steps(str(run_dir)) == [3, 2, 1]
    tensors = save_steps(run_dir, [4])
    assert checkpoint_steps(str(run_dir)) == [4, 3, 2, 1]
    assert not step_path(run_dir, 4).with_suffix(".tmp").exists()
    assert torch.equal(load(step_path(run_dir, 4), tensors)["model.weight"], tensors["model.weight"])


def test_saving_a_step_again_replaces_it(run_dir: Path) -> None:
    manifest = make_manifest(step=3)
    save_checkpoint(str(run_dir), manifest, {"other": torch.ones(2)}, keep=9, best_step=None)
    assert torch.equal(load(step_path(run_dir, 3), {"other": torch.ones(2)})["other"], torch.ones(2))


DAMAGES: dict[str, Callable[[Path], object]] = {
    r"__0_0\.distcp is damaged": lambda folder: flip_bit(folder / TENSOR_FILE, 4321),
    r"__0_0\.distcp is damaged: \d+ bytes": lambda folder: truncate(folder / TENSOR_FILE),
    r"\.metadata is damaged": lambda folder: flip_bit(folder / ".metadata", 99),
    r"__0_0\.distcp is missing": lambda folder: (folder / TENSOR_FILE).unlink(),
    r"manifest\.json cannot be read": lambda folder: truncate(folder / "manifest.json"),
    r"manifest\.json cannot be read \(maximum": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "is of checkpoint version 2, this program reads version 1": lambda folder: change_manifest(
        folder, lambda fields: fields.update(version=2)
    ),
    "is not a checkpoint of this program": lambda folder: (folder / "manifest.json").write_text("{}"),
    r"manifest\.json is malformed \(.*'scale'": lambda folder: change_manifest(
        folder, lambda fields: fields.pop("scale")
    ),
    r"manifest\.json is malformed \(step is '3'\)": lambda folder: change_manifest(
        folder, lambda fields: fields.update(step="3")
    ),
    "names '../step-00000001/__0_0.distcp', which is not a file of its folder": lambda folder: change_manifest(
        folder, lambda fields: fields["files"].update({f"../step-00000001/{TENSOR_FILE}": [1, ""]})
    ),
    "names '/etc/hostname', which is not a file of its folder": lambda folder: change_manifest(
        folder, lambda fields: fields["files"].update({"/etc/hostname": [1, ""]})
    ),
    r"names '\.\.', which is not a file of its folder": lambda folder: change_manifest(
        folder, lambda fields: fields["files"].update({"..": [1, ""]})
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_the_newest_that_verifies_is_taken_and_those_skipped_are_named(run_dir: Path, message: str) -> None:
    newest = step_path(run_dir, 3)
    DAMAGES[message](newest)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(str(newest))
    told: list[str] = []
    assert newest_checkpoint(str(run_dir), told.append) == str(step_path(run_dir, 2))
    assert len(told) == 1
    assert told[0].startswith(f"skipping checkpoint {newest}: ")
    truncate(step_path(run_dir, 2) / TENSOR_FILE)
    truncate(step_path(run_dir, 1) / TENSOR_FILE)
    assert newest_checkpoint(str(run_dir), told.append) is None
    with pytest.raises(CheckpointError, match="is whole; all 3 are damaged"):
        find_checkpoint(str(run_dir), told.append)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True))
def test_no_flipped_bit_of_a_manifest_is_a_traceback(run_dir: Path, place: float) -> None:
    path = step_path(run_dir, 3) / "manifest.json"
    content = path.read_bytes()
    flip_bit(path, int(place * len(content) * 8))
    told: list[str] = []
    try:
        # A flip inside a string or a number can go unseen; one inside a checksum, a name or the syntax cannot.
        assert newest_checkpoint(str(run_dir), told.append) == str(step_path(run_dir, 3 if not told else 2))
        find_checkpoint(str(run_dir), told.append)
    finally:
        path.write_bytes(content)


def test_retention_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    save_steps(tmp_path, [1, 2, 3, 4, 5], keep=2, best_step=2)
    assert checkpoint_steps(str(tmp_path)) == [5, 4, 2]
    save_steps(tmp_path, [6], keep=2, best_step=6)
    assert checkpoint_steps(str(tmp_path)) == [6, 5]
    save_steps(tmp_path, [7], keep=1, best_step=None)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000007"]


def test_retention_counts_only_complete_checkpoints(run_dir: Path) -> None:
    shutil.copytree(step_path(run_dir, 3), step_path(run_dir, 8).with_suffix(".tmp"))
    step_path(run_dir, 9).mkdir()
    save_steps(run_dir, [4], keep=2, best_step=None)
    assert checkpoint_steps(str(run_dir)) == [4, 3]


def test_the_best_is_found_else_the_newest(tmp_path: Path) -> None:
    save_steps(tmp_path, [1, 2, 3], best_step=2)
    told: list[str] = []
    best, newest = step_path(tmp_path, 2), step_path(tmp_path, 3)
    assert find_checkpoint(str(tmp_path), told.append) == str(best)
    assert find_checkpoint(f"{tmp_path}/", told.append) == str(best)
    assert find_checkpoint(str(newest), told.append) == str(newest)
    assert told == []
    truncate(best / TENSOR_FILE)
    assert find_checkpoint(str(tmp_path), told.append) == str(newest)
    assert len(told) == 1
    assert str(best) in told[0]
    with pytest.raises(CheckpointError, match="is damaged"):
        find_checkpoint(str(best), told.append)
    shutil.rmtree(best)
    assert find_checkpoint(str(tmp_path), told.append) == str(newest)
    with pytest.raises(CheckpointError, match="does not exist"):
        find_checkpoint(str(tmp_path / "none"), told.append)


class Touch:
    """Pickled, a program that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def layout_of(folder: Path) -> Metadata:
    layout = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301
    assert isinstance(layout, Metadata)
    return layout


def layout_elsewhere(folder: Path, relative_path: str) -> bytes:
    """A layout that says that the tensors stand in another file."""
    layout = layout_of(folder)
    for place in layout.storage_data.values():
        place.relative_path = relative_path
    return pickle.dumps(layout)


def layout_without(folder: Path, name: str) -> bytes:
    layout = layout_of(folder)
    delattr(layout, name)
    return pickle.dumps(layout)


def layout_with(folder: Path, **parts: Any) -> bytes:
    return pickle.dumps(dataclasses.replace(layout_of(folder), **parts))


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "refers to '.*system', which is not allowed": lambda folder: pickle.dumps(Touch(folder / "touched")),
    "refers to 'builtins.eval', which is not allowed": lambda _: b"cbuiltins\neval\n(S'1'\ntR.",
    r"refers to '\.\./step-00000002/__0_0\.distcp', which is not a file": lambda folder: layout_elsewhere(
        folder, f"../step-00000002/{TENSOR_FILE}"
    ),
    "refers to '/etc/passwd', which is not a file": lambda folder: layout_elsewhere(folder, "/etc/passwd"),
    r"\.metadata cannot be read": lambda folder: (folder / ".metadata").read_bytes()[:-9],
    "is not a checkpoint's layout": lambda _: pickle.dumps({"model.weight": 1}),
    "not a checkpoint's layout$": lambda folder: layout_without(folder, "state_dict_metadata"),
    "not a checkpoint's layout()": lambda folder: layout_with(folder, storage_data={1: 2}),
    "has no tensor model.weight": lambda folder: layout_with(folder, state_dict_metadata={}),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_a_hostile_layout_is_refused_and_nothing_is_executed(run_dir: Path, message: str) -> None:
    folder = step_path(run_dir, 3)
    content = HOSTILE[message](folder)
    (folder / ".metadata").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(str(folder))
    replace_file(folder, ".metadata", content)
    with pytest.raises(CheckpointError, match=message):
        load(folder, {"model.weight": torch.zeros(2, 3)})
    assert sorted(path.name for path in folder.iterdir()) == [".metadata", TENSOR_FILE, "manifest.json"]


@pytest.mark.parametrize("kind", ["program", "noise", "nothing"])
def test_a_hostile_tensor_file_is_refused_and_nothing_is_executed(run_dir: Path, kind: str) -> None:
    folder = step_path(run_dir, 3)
    path = folder / TENSOR_FILE
    if kind == "program":
        torch.save(Touch(folder / "touched"), path)
    content = {"program": path.read_bytes(), "noise": bytes(range(256)) * 40, "nothing": b""}[kind]
    replace_file(folder, TENSOR_FILE, content)
    layout = layout_of(folder)
    for place in layout.storage_data.values():
        place.offset, place.length = 0, len(content)
    replace_file(folder, ".metadata", pickle.dumps(layout))
    with pytest.raises(CheckpointError, match="step-00000003 cannot be read") as caught:
        load(folder, {"model.weight": torch.zeros(2, 3)})
    assert "Traceback" not in str(caught.value)
    assert not (folder / "touched").exists()


def test_the_program_that_is_not_executed_would_do_something(tmp_path: Path) -> None:
    # Else the two tests above prove nothing.
    pickle.loads(pickle.dumps(Touch(tmp_path / "touched")))  # noqa: S301
    assert (tmp_path / "touched").exists()


def test_tensors_of_another_model_are_named(saved: Path) -> None:
    folder = step_path(saved, 3)
    with pytest.raises(CheckpointError, match=r"is of another model: it has no tensor model\.scale$"):
        load(folder, {"model.weight": torch.zeros(2, 3), "model.scale": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"is of another model: its model\.bias is \[2\], not \[3, 1\]$"):
        load(folder, {"model.bias": torch.zeros(3, 1)})


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"step-00000001 cannot be written \(.*checkpoints"):
        save_steps(tmp_path, [1])


def test_a_disk_that_fills_up_is_told(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"step-00000004 cannot be written \(.*No space left") as caught:
        save_steps(run_dir, [4])
    assert "Traceback" not in str(caught.value)
    assert checkpoint_steps(str(run_dir)) == [3, 2, 1]
