"""Rasterisation of strokes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from sgloc.ops.ragged import offsets_from_lengths
from sgloc.sketch.raster import RASTER_SIZE, Augmentation, rasterise

SQUARE = [[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0], [0.0, 0.0]]
MIDDLE = (RASTER_SIZE - 1) / 2


def draw(*sketches: list[list[list[float]]], **options: object) -> np.ndarray:
    strokes = [torch.tensor(stroke) for sketch in sketches for stroke in sketch]
    lengths = torch.tensor([len(stroke) for stroke in strokes])
    offsets = offsets_from_lengths(torch.tensor([len(sketch) for sketch in sketches]))
    options = {"line_width": 2, **options}
    images: Tensor = rasterise(torch.cat(strokes).float(), lengths, offsets, **options)  # type: ignore[arg-type]
    assert images.dtype == torch.uint8
    assert images.shape == (len(sketches), RASTER_SIZE, RASTER_SIZE)
    return images.numpy()


def box(image: np.ndarray) -> list[int]:
    """Return the first and last column and the first and last row with ink."""
    columns, rows = np.flatnonzero(image.any(0)), np.flatnonzero(image.any(1))
    return [int(columns[0]), int(columns[-1]), int(rows[0]), int(rows[-1])]


def test_a_square_fills_its_image_wherever_and_however_large_it_is() -> None:
    large = [[[1e4 * x - 3e4, 1e4 * y + 5e4] for x, y in SQUARE]]
    image, other = draw([SQUARE], large)
    np.testing.assert_array_equal(image, other)
    assert image.max() == 255
    # Only the outline is drawn; the inside is empty.
    assert image[20:-20, 20:-20].max() == 0
    left, right, top, bottom = box(image)
    assert left == top
    assert right == bottom == RASTER_SIZE - 1 - left
    assert 9 <= left <= 12


def test_proportions_stay_and_y_points_down() -> None:
    (image,) = draw([[[0.0, 0.0], [10.0, 0.0]], [[0.0, 5.0], [0.0, 4.0]]])
    left, right, top, bottom = box(image)
    assert (right - left) / (bottom - top) == pytest.approx(2, rel=0.05)
    assert image[top + 1].all() or image[top + 1, left + 5 : right - 5].all()
    assert image[bottom - 2, left : left + 4].any()
    assert not image[bottom - 2, left + 10 :].any()


def test_a_dot_and_a_line_of_no_length_are_drawn_in_the_middle() -> None:
    for sketch in ([[[3.0, 4.0]]], [[[3.0, 4.0], [3.0, 4.0]]]):
        (image,) = draw(sketch, line_width=4)
        left, right, top, bottom = box(image)
        assert left + right == pytest.approx(2 * MIDDLE, abs=1)
        assert top + bottom == pytest.approx(2 * MIDDLE, abs=1)


def test_pens_of_different_widths() -> None:
    ink = [float((draw([SQUARE], line_width=width)[0] > 127).sum()) for width in (1, 2, 4, 8)]
    assert ink == sorted(ink)
    assert ink[3] / ink[2] == pytest.approx(2, rel=0.25)


def test_augmentation_depends_on_the_key_alone() -> None:
    augmentation = Augmentation(0.1, 10, 10, flip=True)
    corner = [[[0.0, 0.0], [10.0, 0.0], [10.0, 3.0]]]
    keys = torch.tensor([5, 6, 5])
    images = draw(corner, corner, corner, augmentation=augmentation, random_key=keys)
    np.testing.assert_array_equal(images[0], images[2])
    assert (images[0] != images[1]).any()
    np.testing.assert_array_equal(draw(corner, augmentation=augmentation, random_key=torch.tensor([6]))[0], images[1])
    plain = draw(corner, augmentation=Augmentation(), random_key=torch.tensor([6]))[0]
    np.testing.assert_array_equal(plain, draw(corner)[0])


def test_each_augmentation_does_what_it_says() -> None:
    keys = torch.arange(200)
    flag = [[[0.0, 0.0], [0.0, 10.0]], [[0.0, 0.0], [4.0, 2.0]]]
    flags = [flag] * len(keys)

    def boxes(augmentation: Augmentation) -> np.ndarray:
        return np.array([box(image) for image in draw(*flags, augmentation=augmentation, random_key=keys)])

    (plain,) = draw(flag)
    flipped = draw(*flags, augmentation=Augmentation(flip=True), random_key=keys)
    is_plain = np.array([np.array_equal(image, plain) for image in flipped])
    is_mirror = np.array([np.abs(image[:, ::-1].astype(int) - plain).mean() < 2 for image in flipped])
    assert (is_plain ^ is_mirror).all()
    assert 70 < is_plain.sum() < 130
    shifted = boxes(Augmentation(shift=10)) - box(plain)
    assert np.abs(shifted).max() in (10, 11)
    np.testing.assert_allclose(shifted[:, 0], shifted[:, 1], atol=2)
    assert len(np.unique(shifted[:, 0])) > 10
    assert np.abs(np.corrcoef(shifted[:, 0], shifted[:, 2])[0, 1]) < 0.2
    turned = boxes(Augmentation(rotate=20))
    widths = turned[:, 1] - turned[:, 0]
    assert widths.max() > widths.min() + 20
    assert len(np.unique(widths)) > 20
    stretched = boxes(Augmentation(stretch=0.2))
    ratios = (stretched[:, 1] - stretched[:, 0]) / (stretched[:, 3] - stretched[:, 2])
    assert 0.4 * 0.66 < ratios.min() < 0.4 < ratios.max() < 0.4 * 1.55


def test_points_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        draw([[[0.0, float("nan")], [1.0, 1.0]]])
