"""A synthetic QuickDraw of any size, in .bin files, with its categories, their uneven sizes and its drawing lengths."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sgloc.bench.drawn import (
    LEAST_STROKE,
    POINT_QUANTILES,
    POINTS_FOLLOW_STROKES,
    STROKE_QUANTILES,
    STROKE_SHAPE,
)
from sgloc.data.formats.sources import CATEGORIES

IntArray = npt.NDArray[np.int64]

# Drawings of the smallest category out of 50 million, and how many more the largest has; approximate.
_SMALLEST, _LARGER = 70_000, 270_000
# Chosen so that the 345 categories add up to 50 million drawings.
_UNEVENNESS = 2.6
# A drawing's number times this odd factor, modulo 2**64, is its key_id. Odd factors are invertible, so that the key_id
# gives the number back.
_KEY_FACTOR = 0x9E3779B97F4A7C15
_NUMBER_FACTOR = pow(_KEY_FACTOR, -1, 2**64)
# Drawings generated together; few enough to fit the processor's cache.
_CHUNK = 8192
_HEADER = np.dtype([("key_id", "<u8"), ("country", "S2"), ("recognized", "u1"), ("time", "<u4"), ("strokes", "<u2")])
# Quantile function, over QuickDraw's categories, of a category's mean bytes per drawing relative to the overall mean.
_BYTES_QUANTILES = (
    (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.0),
    (0.2, 0.47, 0.6, 0.74, 0.94, 1.22, 1.46, 1.89, 2.6),
)
_MEAN_BYTES = 210
# Standard deviation of the bytes of a category's drawings, relative to the category's mean.
_BYTES_DEVIATION = 0.4
_LONGEST_STEP = 25
_ZIGZAG = 512


def category_sizes(num_sketches: int) -> IntArray:
    """Return the size of each category, int64 [345], as uneven as in QuickDraw: 70,000 to 340,000 out of 50 million."""
    ends = np.cumsum(_SMALLEST + _LARGER * _even_shares() ** _UNEVENNESS)
    sizes: IntArray = np.diff(np.rint(ends / ends[-1] * num_sketches).astype(np.int64), prepend=0)
    # Shuffled, so that a category's size does not depend on its place in the alphabet.
    mixed: IntArray = np.random.default_rng(0).permutation(sizes)
    return mixed


def _even_shares() -> npt.NDArray[np.float64]:
    """Return one number between 0 and 1 per category, evenly spaced."""
    shares: npt.NDArray[np.float64] = (np.arange(len(CATEGORIES)) + 0.5) / len(CATEGORIES)
    return shares


def numbers_of(key_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the numbers, uint64 [n], of the drawings with the given key_ids, uint64 [n]."""
    return key_ids * np.uint64(_NUMBER_FACTOR)


def draw_block_bytes(block_sizes: IntArray, category_of_block: IntArray, seed: int) -> IntArray:
    """Draw the bytes of each block, int64 [b], given its number of drawings and its category, int64 [b] each."""
    generator = np.random.default_rng(seed)
    of_category = _MEAN_BYTES * np.interp(generator.permutation(_even_shares()), *_BYTES_QUANTILES)
    deviation = _BYTES_DEVIATION * generator.standard_normal(len(block_sizes)) / np.sqrt(block_sizes)
    of_sketch = of_category[category_of_block] * np.maximum(1 + deviation, 0.5)
    block_bytes: IntArray = np.rint(of_sketch * block_sizes).astype(np.int64)
    return block_bytes


def write_category(path: Path, numbers: range, seed: int) -> None:
    """Write drawings of QuickDraw's lengths into a .bin file, atomically.

    Args:
        path: path of the file.
        numbers: numbers of the drawings, which determine their key_ids.
        seed: seed of the drawings, together with the first number.
    """
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        for records in _records(numbers, np.random.default_rng((seed, numbers.start))):
            file.write(records)
    partial.rename(path)


def _records(numbers: range, generator: np.random.Generator) -> Iterator[memoryview]:
    for start in range(0, len(numbers), _CHUNK):
        chunk = np.array(numbers[start : start + _CHUNK], dtype=np.uint64)
        num_strokes, stroke_lengths = _draw_lengths(len(chunk), generator)
        xs, ys = (_draw_coordinates(stroke_lengths, generator) for _ in range(2))
        yield _pack(chunk * np.uint64(_KEY_FACTOR), num_strokes, stroke_lengths, xs, ys).data


def _draw_lengths(num_sketches: int, generator: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Draw the strokes of each sketch, int64 [n], and the points of each stroke, int64 [S]."""
    share_by_strokes, share_by_points, follows = generator.random((3, num_sketches))
    share_by_points = np.where(follows < POINTS_FOLLOW_STROKES, share_by_strokes, share_by_points)
    num_points = np.rint(np.interp(share_by_points, *POINT_QUANTILES)).astype(np.int64)
    num_strokes = np.rint(np.interp(share_by_strokes, *STROKE_QUANTILES)).astype(np.int64)
    num_strokes = np.minimum(num_strokes, num_points // LEAST_STROKE)
    to_share_out = num_points - LEAST_STROKE * num_strokes
    lasts = np.cumsum(num_strokes) - 1
    firsts = lasts + 1 - num_strokes
    weights = generator.standard_gamma(STROKE_SHAPE, lasts[-1] + 1)
    shares = weights * np.repeat(to_share_out / np.add.reduceat(weights, firsts), num_strokes)
    # Round the cumulative sums, not the shares, so that what one stroke loses by rounding goes to the next.
    ends = np.rint(np.cumsum(shares)).astype(np.int64)
    ends[lasts] = np.cumsum(to_share_out)
    return num_strokes, np.maximum(np.diff(ends, prepend=0), 0) + LEAST_STROKE


def _draw_coordinates(stroke_lengths: IntArray, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one coordinate of each point, uint8 [P]: random walks from random starts, reflected at the borders."""
    num_points = int(stroke_lengths.sum())
    noise = np.frombuffer(generator.bytes(num_points), dtype=np.uint8)
    # The 16-bit sums may wrap around: the zigzag's period divides 2**16.
    steps = noise.astype(np.uint16) % (2 * _LONGEST_STEP + 1) - np.uint16(_LONGEST_STEP)
    begins = np.cumsum(stroke_lengths) - stroke_lengths
    steps[begins] = generator.integers(_ZIGZAG, size=len(begins), dtype=np.uint16)
    place = np.cumsum(steps, dtype=np.uint16) % _ZIGZAG
    return np.minimum(place, _ZIGZAG - 1 - place).astype(np.uint8)


def _pack(
    key_ids: npt.NDArray[np.uint64],
    num_strokes: IntArray,
    stroke_lengths: IntArray,
    xs: npt.NDArray[np.uint8],
    ys: npt.NDArray[np.uint8],
) -> npt.NDArray[np.uint8]:
    """Encode n sketches of S strokes and P points as records of a .bin file, uint8 [...]."""
    headers = np.zeros(len(key_ids), dtype=_HEADER)
    headers["key_id"], headers["country"], headers["recognized"] = key_ids, b"XX", 1
    headers["strokes"] = num_strokes
    sketches_before = np.repeat(np.arange(1, len(key_ids) + 1), num_strokes)
    ends = np.cumsum(2 + 2 * stroke_lengths) + _HEADER.itemsize * sketches_before
    begins = ends - 2 - 2 * stroke_lengths
    packed = np.empty(ends[-1], dtype=np.uint8)
    header_ends = begins[np.cumsum(num_strokes) - num_strokes]
    packed[header_ends[:, None] + np.arange(-_HEADER.itemsize, 0)] = headers.view(np.uint8).reshape(len(headers), -1)
    packed[begins], packed[begins + 1] = stroke_lengths % 256, stroke_lengths // 256
    points_before = np.cumsum(stroke_lengths) - stroke_lengths
    places = np.arange(len(xs)) + np.repeat(begins + 2 - points_before, stroke_lengths)
    packed[places] = xs
    packed[places + np.repeat(stroke_lengths, stroke_lengths)] = ys
    return packed
