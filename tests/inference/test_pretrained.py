"""The Python API of a pretrained model: from stroke-3 to codes and stroke-3."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import sgloc
from sgloc.data.batch import Preparation
from sgloc.data.manifest import load_manifest
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.errors import ConfigError, DataError
from sgloc.inference.pretrained import Pretrained
from sgloc.inference.sketches import polylines_of_stroke3, stroke3_of_polylines
from sgloc.inference.stroke_matching import placed
from tests.checkpoints import make_model, save_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, tiny_shards: str) -> Pretrained:
    return sgloc.load_pretrained(str(save_model(tmp_path_factory.mktemp("run"), tiny_shards, make_model(seed=19))))


@pytest.fixture(scope="module")
def sketches(tiny_shards: str) -> list[npt.NDArray[np.int64]]:
    """The drawings of the test split as stroke-3."""
    manifest = load_manifest(tiny_shards)
    reader = ShardReader(tiny_shards, manifest, "test")
    (packed,) = fixed_batches(reader, np.arange(reader.num_sketches), batch_size=reader.num_sketches)
    found = []
    for number in range(len(packed)):
        one = packed.part(number, number + 1)
        lift = np.zeros(one.num_points, dtype=np.int64)
        lift[np.cumsum(one.stroke_lengths) - 1] = 1
        found.append(np.column_stack([one.offsets, lift]))
    return found


def test_codes_are_those_of_the_shards(
    pretrained: Pretrained, sketches: list[npt.NDArray[np.int64]], tiny_shards: str
) -> None:
    manifest = load_manifest(tiny_shards)
    reader = ShardReader(tiny_shards, manifest, "test")
    (packed,) = fixed_batches(reader, np.arange(reader.num_sketches), batch_size=reader.num_sketches)
    with torch.no_grad():
        batch = Preparation(manifest.scale, 0)(packed, CPU)
        expected = pretrained.model.encode(batch).y.numpy()
    found = pretrained.encode(sketches)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(pretrained.encode(sketches, batch_size=1), expected, rtol=1e-5, atol=1e-6)
    floats = [sketch.astype(np.float32) for sketch in sketches]
    np.testing.assert_array_equal(pretrained.encode(floats), expected)


def test_no_sketch_has_no_code(pretrained: Pretrained) -> None:
    assert pretrained.encode([]).shape == (0, 5)
    assert pretrained.generate(np.zeros((0, 5))) == []
    assert pretrained.reorganize([]) == []


def test_generated_sketches_do_not_depend_on_the_batch(
    pretrained: Pretrained, sketches: list[npt.NDArray[np.int64]]
) -> None:
    codes = pretrained.encode(sketches)
    for options in ({}, {"temperature": 0.5, "seed": 3}):
        whole = pretrained.generate(codes, **options)  # type: ignore[arg-type]
        parts = pretrained.generate(codes, batch_size=2, **options)  # type: ignore[arg-type]
        assert [one.shape for one in whole] == [one.shape for one in parts]
        for one, other in zip(whole, parts, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-2)
    assert any(len(one) for one in whole)
    assert all(one.dtype == np.float32 and set(one[:, 2]) <= {0, 1} and one[-1:, 2].all() for one in whole)


def test_reorganized_sketches_are_redrawn_or_keep_their_strokes(
    pretrained: Pretrained, sketches: list[npt.NDArray[np.int64]]
) -> None:
    redrawn = pretrained.reorganize(sketches)
    for one, other in zip(redrawn, pretrained.generate(pretrained.encode(sketches)), strict=True):
        np.testing.assert_array_equal(one, other)
    kept = pretrained.reorganize(sketches, keep_strokes=True)
    num_moved = 0
    for before, after, drawn in zip(sketches, kept, redrawn, strict=True):
        np.testing.assert_array_equal(after[:, 2], before[:, 2])
        strokes = polylines_of_stroke3(before)
        target = polylines_of_stroke3(drawn) if len(drawn) else []
        expected = stroke3_of_polylines(placed(strokes, target))
        np.testing.assert_allclose(after, expected, atol=1e-2)
        num_moved += int(np.abs(after - before).max() > 1)
    assert num_moved > 0


def test_stroke3_there_and_back(sketches: list[npt.NDArray[np.int64]]) -> None:
    for sketch in sketches:
        np.testing.assert_array_equal(stroke3_of_polylines(polylines_of_stroke3(sketch)), sketch)
    # The last point ends the last stroke even without a pen lift; offsets are clipped.
    np.testing.assert_array_equal(polylines_of_stroke3(np.array([[5000, 1, 0]])), [[[1000, 1]]])


@pytest.mark.parametrize(
    ("sketch", "message"),
    [
        (np.zeros((0, 3)), r"sketch 1 has shape \(0, 3\)"),
        (np.zeros((4, 2)), r"sketch 1 has shape \(4, 2\)"),
        (np.array([[0.0, np.nan, 1.0]]), "sketch 1 contains a value that is not a finite number"),
        (np.array([["a", "b", "c"]]), "sketch 1 contains a value that is not a finite number"),
    ],
)
def test_what_is_no_sketch_is_told(
    pretrained: Pretrained, sketch: npt.NDArray[np.float64], message: str, sketches: list[npt.NDArray[np.int64]]
) -> None:
    with pytest.raises(DataError, match=message):
        pretrained.encode([sketches[0], sketch])


def test_options_that_cannot_be(pretrained: Pretrained) -> None:
    with pytest.raises(ConfigError, match=r"codes must be finite and \[sketches, 5\], not \[2, 4\]"):
        pretrained.generate(np.zeros((2, 4)))
    with pytest.raises(ConfigError, match="codes must be finite"):
        pretrained.generate(np.full((2, 5), np.inf))
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        pretrained.encode([], batch_size=0)
    with pytest.raises(ConfigError, match="temperature must be at least 0"):
        pretrained.generate(np.zeros((2, 5)), temperature=-1)
    with pytest.raises(ConfigError, match="max_points must be at least 0"):
        pretrained.generate(np.zeros((2, 5)), max_points=-1)


def test_the_device_is_an_argument(tmp_path: Path, tiny_shards: str) -> None:
    save_model(tmp_path, tiny_shards, make_model())
    assert sgloc.load_pretrained(str(tmp_path), device="cpu").device == CPU
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="cuda"):
            sgloc.load_pretrained(str(tmp_path), device="cuda")
    with pytest.raises(ConfigError, match="nowhere"):
        sgloc.load_pretrained(str(tmp_path), device="nowhere")
