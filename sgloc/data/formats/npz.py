"""Reader of sketch-rnn npz files (METHOD 1)."""

import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sgloc.data.formats.files import MAX_COMPRESSION_RATIO
from sgloc.data.formats.form import Form
from sgloc.data.formats.rows import Outcome, derived_key
from sgloc.data.formats.safe_pickle import load_object_array
from sgloc.data.manifest import SPLITS
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Int16Array
from sgloc.sketch.rejects import UnfitError
from sgloc.storage import open_file, reading

MAX_MEMBER_BYTES = 2 * 2**30
_INT16 = np.iinfo(np.int16)


def read_npz(location: str, category: str, *, max_points: int) -> Iterator[Outcome]:
    """Read a sketch-rnn npz file: stroke-3 object arrays named train, valid and test.

    Such files have no key_ids, so ``key_id`` is the first 8 bytes, big endian, of the BLAKE2b digest of
    "category/split/index".

    Args:
        location: local path or fsspec URL.
        category: category of every drawing.
        max_points: maximum number of points in a drawing.

    Yields:
        One outcome per entry, split after split. Its place is, for example, "train[17]", counted from 0.

    Raises:
        DataError: if the file is missing, unreadable, empty, damaged or not a zip archive, lacks a split, holds
            anything other than number arrays, or declares an implausible decompressed size.
    """
    for split, arrays in _load_splits(location):
        for index, array in enumerate(arrays):
            try:
                stroke3 = _check_stroke3(array, max_points)
            except UnfitError as error:
                yield f"{split}[{index}]", error
            else:
                key_id = derived_key(f"{category}/{split}/{index}".encode())
                yield f"{split}[{index}]", Drawing(category, key_id, True, stroke3, split)


def _load_splits(location: str) -> Iterator[tuple[str, list[npt.NDArray[Any]]]]:
    """Load the splits of an npz file one at a time."""
    with reading(location), open_file(location) as stream:
        magic = stream.read(4)
        if not magic:
            raise DataError(f"{location} is empty; download it again")
        if not magic.startswith(b"PK"):
            raise DataError(
                f"{location} is not an npz file: it does not start with the zip magic bytes; is it an error page?"
            )
        with zipfile.ZipFile(stream) as archive:
            members = {member.filename: member for member in archive.infolist()}
            missing = [split for split in SPLITS if f"{split}.npy" not in members]
            if missing:
                raise DataError(f"{location} is not a sketch-rnn file: it lacks {', '.join(missing)}; check the file")
            for split in SPLITS:
                member = members[f"{split}.npy"]
                if member.file_size > min(MAX_MEMBER_BYTES, MAX_COMPRESSION_RATIO * member.compress_size):
                    raise DataError(
                        f"{location} claims {member.file_size} bytes for {split}, compressed to "
                        f"{member.compress_size}, which is implausible for drawings; download it again"
                    )
                with archive.open(member) as content:
                    arrays = load_object_array(content, f"{split} of {location}")
                yield split, arrays


def _check_stroke3(array: npt.NDArray[Any], max_points: int) -> Int16Array:
    """Convert an array of any number type and shape to stroke-3 rows, int16 [N, 3], or raise UnfitError."""
    if array.ndim != 2 or array.shape[1] != 3:
        raise UnfitError("wrong_shape", f"shape {array.shape} instead of (N, 3)")
    if len(array) == 0:
        raise UnfitError("empty_drawing", "no row")
    if len(array) > max_points:
        raise UnfitError("too_many_points", f"{len(array)} points; the limit is {max_points}")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise UnfitError("not_finite", f"{array.dtype} with NaN or infinity")
        if (array != np.trunc(array)).any():
            raise UnfitError("wrong_dtype", f"{array.dtype} with non-integer values")
    pen = array[:, 2]
    if not ((pen == 0) | (pen == 1)).all():
        raise UnfitError("bad_pen", f"pen_lift from {pen.min()} to {pen.max()}; it must be 0 or 1")
    if pen[-1] != 1:
        raise UnfitError("open_last_stroke", "the last pen_lift is 0")
    if array.min() < _INT16.min or array.max() > _INT16.max:
        raise UnfitError("offset_too_large", f"offsets from {array.min()} to {array.max()} do not fit in 16 bits")
    return array.astype(np.int16)


FORM = Form(
    what="a zip archive",
    endings=(".npz",),
    begins=lambda head: head.startswith(b"PK"),
    read=lambda location, category, _, max_points: read_npz(location, category, max_points=max_points),
    is_named=True,
    brings_origin=True,
    public={"npz": "sketchrnn"},
    reasons={
        "bad_pen": "npz: a pen_lift other than 0 or 1",
        "offset_too_large": "npz: an offset that does not fit in 16 bits",
        "open_last_stroke": "npz: the last pen_lift is 0",
        "wrong_dtype": "npz: values that are not integers",
    },
)
