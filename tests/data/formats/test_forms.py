"""A drawing gives the same sketch in every file format; tested on synthetic drawings and, if available, real ones."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sgloc.data.formats.form import read_drawings
from sgloc.data.formats.sources import find_sources
from sgloc.sketch.drawing import Drawing, Reject
from sgloc.sketch.simplify import align
from tests.drawings import (
    real_drawings,
    stroke3_to_polylines,
    write_binary,
    write_npz_of_python2,
    write_raw_ndjson,
    write_simplified_sample,
)

Float64Array = npt.NDArray[np.float64]


def drawings_of(outcomes: list[Drawing | Reject]) -> list[Drawing]:
    assert all(isinstance(outcome, Drawing) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Drawing)]


@pytest.fixture(scope="module", params=["made", "real"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of simplified ndjson files, one per category."""
    return real_drawings() if request.param == "real" else write_simplified_sample(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def drawn(folder: Path) -> dict[str, list[Drawing]]:
    """The drawings of each category."""
    return {
        file.category: drawings_of(list(read_drawings(file.location, word=file.category)))
        for file in find_sources(str(folder))
    }


def test_reads_every_drawing(folder: Path, drawn: dict[str, list[Drawing]]) -> None:
    assert set(drawn) == {path.stem for path in folder.glob("*.ndjson")}
    for category, drawings in drawn.items():
        assert len(drawings) == (folder / f"{category}.ndjson").read_bytes().count(b"\n") >= 12
        assert {drawing.category for drawing in drawings} == {category}


def test_npz_of_python2_gives_the_same_sketches(tmp_path: Path, drawn: dict[str, list[Drawing]]) -> None:
    for category, drawings in drawn.items():
        rows = [drawing.stroke3 for drawing in drawings]
        path = tmp_path / f"{category}.full.npz"
        write_npz_of_python2(path, train=rows[10:], valid=rows[:5], test=rows[5:10])
        found = drawings_of(list(read_drawings(str(path), word=category)))
        expected = rows[10:] + rows[:5] + rows[5:10]
        for drawing, stroke3 in zip(found, expected, strict=True):
            np.testing.assert_array_equal(drawing.stroke3, stroke3)
        assert [drawing.split for drawing in found] == ["train"] * (len(rows) - 10) + ["valid"] * 5 + ["test"] * 5


def test_binary_gives_the_same_sketches(tmp_path: Path, drawn: dict[str, list[Drawing]]) -> None:
    for category, drawings in drawn.items():
        path = tmp_path / f"{category}.bin"
        write_binary(path, drawings)
        found = drawings_of(list(read_drawings(str(path), word=category)))
        for one, other in zip(found, drawings, strict=True):
            assert (one.category, one.key_id, one.recognized) == (other.category, other.key_id, other.recognized)
            np.testing.assert_array_equal(one.stroke3, other.stroke3)


def distances_to_polyline(points: Float64Array, line: Float64Array) -> Float64Array:
    """Return the distances, float64 [n], of points [n, 2] from the polyline through points [m, 2]."""
    starts, along = line[:-1], np.diff(line, axis=0)
    if len(line) == 1:
        starts, along = line, np.zeros((1, 2))
    lengths = np.maximum((along**2).sum(axis=1), 1e-12)
    share = np.clip(((points[:, None] - starts) * along).sum(axis=2) / lengths, 0, 1)
    nearest = starts + share[..., None] * along
    distances: Float64Array = np.linalg.norm(points[:, None] - nearest, axis=2).min(axis=1)
    return distances


def test_raw_gives_nearly_the_simplified_sketches(tmp_path: Path, drawn: dict[str, list[Drawing]]) -> None:
    """A simplified drawing on another canvas, read as a raw one, stays nearly the same.

    Exact equality is impossible: resampling at 1 px skips corners, so rounding and the second thinning by 2 px move or
    drop points. But no stroke is lost, each point is a rounded point of its original stroke, and hardly any corner is
    farther from the new stroke than 2 px plus half a step plus the rounding. (A turning point beyond both ends of its
    run may be: the recipe measures distances to the infinite line.)
    """
    generator = np.random.default_rng(0)
    rounding = 0.5**0.5
    strays: list[float] = []
    num_points_before = num_points_after = 0
    # At most fifty categories.
    for category in list(drawn)[:: 1 + len(drawn) // 51]:
        drawings = drawn[category][:12]
        scale, shift = np.exp(generator.uniform(-3, 3)), generator.uniform(-1000, 1000, 2)
        path = tmp_path / f"{category}.ndjson"
        write_raw_ndjson(path, drawings, scale=scale, shift=tuple(shift))
        found = drawings_of(list(read_drawings(str(path), word=category)))
        for one, other in zip(found, drawings, strict=True):
            assert (one.category, one.key_id, one.recognized) == (other.category, other.key_id, other.recognized)
            before = align([line.astype(np.float64) for line in stroke3_to_polylines(other.stroke3)])
            after = [line.astype(np.float64) for line in stroke3_to_polylines(one.stroke3)]
            stray = 0.0
            for old, new in zip(before, after, strict=True):
                assert distances_to_polyline(new, old).max() < rounding + 1e-6
                np.testing.assert_allclose(new[[0, -1]], old[[0, -1]], rtol=0, atol=0.5 + 1e-6)
                stray = max(stray, distances_to_polyline(old, new).max())
            strays.append(stray)
            num_points_before += len(other.stroke3)
            num_points_after += len(one.stroke3)
    assert len(strays) >= 96
    assert np.mean(np.array(strays) < 2 + 0.5 + rounding) > 0.98
    assert 0.95 < num_points_after / num_points_before <= 1
