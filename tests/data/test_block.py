"""Blocks: the format described in shards/README.md, and damage to it."""

import io
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sgloc.data import block as module
from sgloc.data.block import Block, pack_block, unpack_block
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing
from tests.drawings import Strokes, make_drawings, sketches_with_offsets, stroke3_of


def expect_drawings(block: Block, drawings: list[Drawing]) -> None:
    assert len(block) == len(drawings)
    for number, drawing in enumerate(drawings):
        points = slice(block.point_starts[number], block.point_starts[number + 1])
        strokes = slice(block.stroke_starts[number], block.stroke_starts[number + 1])
        np.testing.assert_array_equal(block.offsets[points], drawing.stroke3[:, :2])
        ends = np.flatnonzero(drawing.stroke3[:, 2]) + 1
        assert np.cumsum(block.stroke_lengths[strokes], dtype=np.int64).tolist() == ends.tolist()
        assert str(block.words[block.category[number]]) == drawing.category
        assert (int(block.key_id[number]), bool(block.recognized[number])) == (drawing.key_id, drawing.recognized)


@given(
    sketches_with_offsets(32767),
    st.lists(st.sampled_from(["cat", "The Great Wall of China", "día"]), min_size=4, max_size=4),
    st.lists(st.integers(0, 2**64 - 1), min_size=4, max_size=4),
    st.sampled_from(["none", "zstd"]),
)
def test_what_is_packed_comes_back(
    sketches: list[Strokes], words: list[str], key_ids: list[int], compression: str
) -> None:
    drawings = [
        Drawing(word, key_id, key_id % 2 == 0, stroke3_of(strokes))
        for strokes, word, key_id in zip(sketches, words, key_ids, strict=False)
    ]
    content = pack_block(drawings, compression)
    assert content == pack_block(drawings, compression)
    expect_drawings(unpack_block(content, "it"), drawings)


@pytest.mark.parametrize(("length", "expected"), [(255, np.uint8), (256, np.uint16), (65536, np.uint32)])
def test_counts_are_as_narrow_as_they_can_be(length: int, expected: type) -> None:
    drawings = [Drawing("cat", 1, True, stroke3_of([[(0, 0)] * length, [(1, 1)]]))]
    block = unpack_block(pack_block(drawings), "it")
    assert block.stroke_lengths.dtype == expected
    assert block.num_strokes.dtype == np.uint8
    expect_drawings(block, drawings)


def test_compression_makes_real_content_smaller() -> None:
    drawings = make_drawings(1024, points=40)
    assert len(pack_block(drawings, "zstd")) < 0.8 * len(pack_block(drawings))


def test_a_block_that_claims_to_unpack_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BLOCK_BYTES", 1000)
    with pytest.raises(DataError, match=r"it is damaged \(its header claims \d+ bytes\)"):
        unpack_block(pack_block(make_drawings(100), "zstd"), "it")


def test_a_block_of_unknown_size_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(DataError, match="it is damaged"):
        unpack_block(compressor.compress(pack_block(make_drawings(100))), "it")


def expect_told_or_harmless(content: bytes, place: int, bit: int) -> None:
    """Assert that flipping this bit is reported or changes no drawing."""
    flipped = bytearray(content)
    flipped[place] ^= 1 << bit
    try:
        found = unpack_block(bytes(flipped), "it")
    except DataError:
        return
    expect_drawings(found, make_drawings(2))


def test_no_flipped_bit_of_a_block_changes_a_drawing() -> None:
    content = pack_block(make_drawings(2))
    for place in range(content.index(b"PK\1\2")):
        expect_told_or_harmless(content, place, place % 8)


def test_no_flipped_bit_of_a_blocks_directory_escapes() -> None:
    content = pack_block(make_drawings(2))
    for place, bit in itertools.product(range(content.index(b"PK\1\2"), len(content)), range(8)):
        expect_told_or_harmless(content, place, bit)


Arrays = dict[str, npt.NDArray[Any]]

ARRAYS: Arrays = {
    "offsets": np.zeros((3, 2), dtype=np.int16),
    "stroke_lengths": np.array([2, 1], dtype=np.uint8),
    "num_strokes": np.array([1, 1], dtype=np.uint8),
    "words": np.array(["cat"]),
    "category": np.zeros(2, dtype=np.uint8),
    "key_id": np.zeros(2, dtype=np.uint64),
    "recognized": np.ones(2, dtype=np.bool_),
}


def npz_of(arrays: Arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": np.zeros((4, 2), dtype=np.int16)},
        {"offsets": np.zeros((3, 3), dtype=np.int16)},
        {"offsets": np.zeros((3, 2), dtype=np.int32)},
        {"stroke_lengths": np.array([2, 1], dtype=np.int8)},
        {"stroke_lengths": np.array([3], dtype=np.uint8)},
        {"num_strokes": np.array([2], dtype=np.uint8)},
        {"num_strokes": np.array([1.0, 1.0])},
        {"words": np.array([3])},
        {"category": np.array([0, 1], dtype=np.uint8)},
        {"category": np.array([0], dtype=np.uint8)},
        {"key_id": np.zeros(3, dtype=np.uint64)},
        {"recognized": np.ones(1, dtype=np.bool_)},
    ],
)
def test_arrays_that_do_not_fit_together_are_told(change: Arrays) -> None:
    assert len(unpack_block(npz_of(ARRAYS), "it")) == 2
    with pytest.raises(DataError, match=r"^it is damaged"):
        unpack_block(npz_of({**ARRAYS, **change}), "it")


def test_a_pickle_in_a_block_is_not_run() -> None:
    with pytest.raises(DataError, match="it is damaged"):
        unpack_block(npz_of({**ARRAYS, "words": np.array([object()], dtype=object)}), "it")
