"""Drawings for tests, and files in every drawing format."""

import json
import os
import struct
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st

from sgloc.data.batch import PackedBatch
from sgloc.sketch.drawing import Drawing, Int16Array, polylines_to_stroke3
from sgloc.sketch.synthetic import CATEGORIES as SYNTHETIC
from sgloc.sketch.synthetic import draw
from tests.pickles import pickle_of_python2, to_npy

Strokes = list[list[tuple[int, int]]]


def sketches_with_offsets(most: int, *, most_points: int = 9) -> st.SearchStrategy[list[Strokes]]:
    """Strategy: one to four sketches, each a list of strokes, each a list of offsets (dx, dy) up to +-most."""
    offset = st.tuples(st.integers(-most, most), st.integers(-most, most))
    stroke = st.lists(offset, min_size=1, max_size=most_points)
    return st.lists(st.lists(stroke, min_size=1, max_size=4), min_size=1, max_size=4)


def stroke3_to_polylines(stroke3: Int16Array) -> list[npt.NDArray[np.int64]]:
    """Turn stroke-3 rows into polylines; the inverse of `polylines_to_stroke3`.

    Args:
        stroke3: int16 [N, 3].

    Returns:
        One int64 [n, 2] array of absolute (x, y) per stroke.
    """
    points = np.cumsum(stroke3[:, :2], axis=0, dtype=np.int64)
    ends = np.flatnonzero(stroke3[:, 2]) + 1
    return np.split(points, ends[ends < len(points)])


def stroke3_of(strokes: Strokes) -> Int16Array:
    """Return strokes given as offsets as stroke-3 rows, int16 [N, 3]."""
    rows = [(dx, dy, int(place == len(stroke) - 1)) for stroke in strokes for place, (dx, dy) in enumerate(stroke)]
    return np.array(rows, dtype=np.int16)


def make_drawings(
    number: int, categories: Sequence[str] = ("cat", "dog"), *, seed: int = 0, first_key_id: int = 1, points: int = 3
) -> list[Drawing]:
    """Return drawings of two strokes, one of `points` random points in 0..255 and one of a single point.

    Categories alternate.
    """
    generator = np.random.default_rng(seed)
    drawings = []
    for index in range(number):
        polylines = [generator.integers(0, 256, (points, 2)), generator.integers(0, 256, (1, 2))]
        category = categories[index % len(categories)]
        stroke3 = polylines_to_stroke3(polylines)
        drawings.append(Drawing(category, first_key_id + index, index % 3 > 0, stroke3))
    return drawings


def write_ndjson(path: Path, drawings: Iterable[Drawing]) -> None:
    """Write drawings within 0..255 as a simplified ndjson file."""
    with path.open("w") as stream:
        for drawing in drawings:
            polylines = [line.T.tolist() for line in stroke3_to_polylines(drawing.stroke3)]
            fields = {"word": drawing.category, "key_id": str(drawing.key_id), "recognized": drawing.recognized}
            stream.write(json.dumps({**fields, "drawing": polylines}) + "\n")


def write_simplified_sample(folder: Path, *, number: int = 12) -> Path:
    """Write `number` drawings of each synthetic category as simplified ndjson files; return the folder."""
    for place, category in enumerate(SYNTHETIC):
        generator = np.random.default_rng(place)
        rows = [polylines_to_stroke3(draw(category, generator)) for _ in range(number)]
        drawings = [Drawing(category, 1000 * place + index, index % 3 > 0, row) for index, row in enumerate(rows)]
        write_ndjson(folder / f"{category}.ndjson", drawings)
    return folder


def real_drawings() -> Path:
    """Return the folder of simplified QuickDraw files set in SGLOC_QUICKDRAW; skip the test if it is unset."""
    folder = os.environ.get("SGLOC_QUICKDRAW")
    if not folder:
        pytest.skip("set SGLOC_QUICKDRAW to a folder of simplified .ndjson files from QuickDraw's public data set")
    return Path(folder)


def write_npz(path: Path, **splits: list[Int16Array]) -> None:
    """Write stroke-3 arrays as a sketch-rnn npz file; omitted splits are empty."""
    arrays = {}
    for split in ("train", "valid", "test"):
        given = splits.get(split, [])
        arrays[split] = np.empty(len(given), dtype=object)
        for index, rows in enumerate(given):
            arrays[split][index] = rows
    np.savez_compressed(path, allow_pickle=True, **arrays)


def stroke3s_of(packed: PackedBatch) -> list[Int16Array]:
    """Return the stroke-3 rows of each sketch of a batch."""
    result = []
    stroke = point = 0
    for num_strokes in packed.num_strokes.tolist():
        lengths = packed.stroke_lengths[stroke : stroke + num_strokes]
        rows = np.zeros((int(lengths.sum()), 3), dtype=np.int16)
        rows[:, :2] = packed.offsets[point : point + len(rows)]
        rows[np.cumsum(lengths) - 1, 2] = 1
        result.append(rows)
        stroke, point = stroke + num_strokes, point + len(rows)
    return result


def write_binary(path: Path, drawings: Iterable[Drawing], *, country: bytes = b"US", timestamp: int = 1) -> None:
    """Write drawings within 0..255 as a QuickDraw binary file."""
    with path.open("wb") as stream:
        for drawing in drawings:
            polylines = stroke3_to_polylines(drawing.stroke3)
            stream.write(struct.pack("<Q2sbIH", drawing.key_id, country, drawing.recognized, timestamp, len(polylines)))
            for line in polylines:
                stream.write(struct.pack("<H", len(line)) + line.T.astype(np.uint8).tobytes())


def write_raw_ndjson(path: Path, drawings: Iterable[Drawing], *, scale: float, shift: tuple[float, float]) -> None:
    """Write drawings as a raw ndjson file on a canvas enlarged by `scale` and moved by `shift`."""
    with path.open("w") as stream:
        for drawing in drawings:
            strokes = [
                [*(line * scale + shift).T.tolist(), list(range(0, 16 * len(line), 16))]
                for line in stroke3_to_polylines(drawing.stroke3)
            ]
            fields = {"word": drawing.category, "key_id": str(drawing.key_id), "recognized": drawing.recognized}
            stream.write(json.dumps({**fields, "drawing": strokes}) + "\n")


def write_npz_of_python2(path: Path, **splits: Sequence[Int16Array]) -> None:
    """Write stroke-3 arrays as Python 2 wrote the published sketch-rnn files; omitted splits are empty."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for split in ("train", "valid", "test"):
            given = splits.get(split, [])
            archive.writestr(f"{split}.npy", to_npy(pickle_of_python2(given), len(given)))
