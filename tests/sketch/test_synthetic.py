"""The built-in synthetic sample: file format, determinism, and layout of its drawings."""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import fsspec
import numpy as np
import numpy.typing as npt
import pytest

from sgloc.errors import ConfigError
from sgloc.sketch.synthetic import CATEGORIES, draw, write_sample
from tests.drawings import stroke3_to_polylines

Stroke = npt.NDArray[np.int64]
SPLITS = ("train", "valid", "test")
NUM_DRAWINGS = 120


@cache
def drawings(category: str) -> list[list[Stroke]]:
    return [draw(category, np.random.default_rng(seed)) for seed in range(NUM_DRAWINGS)]


def load(path: str, split: str) -> list[npt.NDArray[np.int16]]:
    with np.load(path, allow_pickle=True) as arrays:
        return list(arrays[split])


def box(stroke: Stroke) -> tuple[Stroke, Stroke]:
    return stroke.min(axis=0), stroke.max(axis=0)


def sides(stroke: Stroke) -> Stroke:
    low, high = box(stroke)
    return high - low


def largest(drawing: list[Stroke]) -> int:
    return int(np.argmax([sides(stroke).prod() for stroke in drawing]))


def middle(stroke: Stroke) -> npt.NDArray[np.float64]:
    low, high = box(stroke)
    return (low + high) / 2


def lies_in(stroke: Stroke, other: Stroke) -> bool:
    low, high = box(other)
    return bool(((low <= middle(stroke)) & (middle(stroke) <= high)).all())


def is_ring(stroke: Stroke) -> bool:
    """Return whether a stroke ends near its start and is about as wide as high."""
    width, height = sides(stroke).tolist()
    closes = np.hypot(*(stroke[-1] - stroke[0])) < 0.5 * max(width, height)
    return bool(len(stroke) > 4 and closes and 0.6 < (width + 1) / (height + 1) < 1.7)


def share(outcomes: Iterator[bool]) -> float:
    return float(np.mean(list(outcomes)))


class TestWriteSample:
    def test_has_quickdraws_form(self, tmp_path: Path) -> None:
        folder = str(tmp_path / "made" / "here")
        paths = write_sample(folder, num_train=3, num_valid=2, num_test=0, seed=7)
        assert paths == [f"{folder}/{category}.npz" for category in CATEGORIES]
        for path in paths:
            with np.load(path, allow_pickle=True) as arrays:
                assert set(arrays.files) == set(SPLITS)
                assert [arrays[split].shape for split in SPLITS] == [(3,), (2,), (0,)]
                assert all(arrays[split].dtype == np.object_ for split in SPLITS)
            for rows in load(path, "train") + load(path, "valid"):
                assert rows.dtype == np.int16
                assert rows.shape == (len(rows), 3)
                assert set(np.unique(rows[:, 2])) <= {0, 1}
                assert rows[-1, 2] == 1

    def test_same_arguments_give_the_same_bytes_wherever_they_go(self, tmp_path: Path) -> None:
        numbers = {"num_train": 3, "num_valid": 1, "num_test": 1, "seed": 11}
        first = write_sample(str(tmp_path / "first"), **numbers)
        second = write_sample(f"{tmp_path}/second/", **numbers)
        remote = write_sample("memory://synthetic-sample", **numbers)
        assert remote[0] == "memory://synthetic-sample/pig.npz"
        for one, other, away in zip(first, second, remote, strict=True):
            assert Path(one).read_bytes() == Path(other).read_bytes()
            with fsspec.open(away, "rb") as file:
                assert file.read() == Path(one).read_bytes()

    def test_a_drawing_does_not_depend_on_how_many_others_are_made(self, tmp_path: Path) -> None:
        few = write_sample(str(tmp_path / "few"), num_train=2, num_valid=1, num_test=1, seed=5)
        many = write_sample(str(tmp_path / "many"), num_train=4, num_valid=3, num_test=2, seed=5)
        for some, more in zip(few, many, strict=True):
            for split in SPLITS:
                for one, other in zip(load(some, split), load(more, split), strict=False):
                    np.testing.assert_array_equal(one, other)

    def test_seed_split_and_index_each_change_the_drawing(self, tmp_path: Path) -> None:
        numbers = {"num_train": 2, "num_valid": 1, "num_test": 1}
        paths = [write_sample(str(tmp_path / str(seed)), **numbers, seed=seed) for seed in (0, 1)]
        for both in zip(*paths, strict=True):
            made = {rows.tobytes() for path in both for split in SPLITS for rows in load(path, split)}
            assert len(made) == 8

    @pytest.mark.parametrize("name", ["num_train", "num_valid", "num_test", "seed"])
    def test_refuses_negative_numbers(self, tmp_path: Path, name: str) -> None:
        numbers = {"num_train": 1, "num_valid": 1, "num_test": 1, "seed": 0, name: -1}
        with pytest.raises(ConfigError, match=name):
            write_sample(str(tmp_path), **numbers)
        assert not list(tmp_path.iterdir())

    def test_holds_what_draw_draws(self, tmp_path: Path) -> None:
        paths = write_sample(str(tmp_path), num_train=0, num_valid=2, num_test=0, seed=3)
        key = (CATEGORIES.index("car"), SPLITS.index("valid"), 1)
        drawing = draw("car", np.random.default_rng(np.random.SeedSequence(3, spawn_key=key)))
        written = stroke3_to_polylines(load(paths[CATEGORIES.index("car")], "valid")[1])
        assert [stroke.tolist() for stroke in written] == [stroke.tolist() for stroke in drawing]


def test_the_drawings_are_those_of_the_first_sample() -> None:
    digest = hashlib.sha256()
    for category in CATEGORIES:
        for drawing in drawings(category):
            for stroke in drawing:
                digest.update(stroke.astype("<i8").tobytes() + b"|")
            digest.update(b"#")
    assert digest.hexdigest() == "4d47b787e043b40d9acb41cdfbbf32d19569ab4deed57b51053d561eba0436bd"


def test_unknown_category_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'dragon'.*giraffe"):
        draw("dragon", np.random.default_rng(0))


@pytest.mark.parametrize("category", CATEGORIES)
class TestEveryCategory:
    def test_coordinates_fill_the_canvas(self, category: str) -> None:
        for drawing in drawings(category):
            points = np.concatenate(drawing)
            assert points.min() >= 0
            assert 250 <= points.max() <= 255

    def test_is_about_as_long_as_people_draw(self, category: str) -> None:
        num_strokes = [len(drawing) for drawing in drawings(category)]
        num_points = [sum(map(len, drawing)) for drawing in drawings(category)]
        assert 4 <= np.mean(num_strokes) <= 12
        assert max(num_strokes) <= 22
        assert 25 <= np.mean(num_points) <= 88

    def test_parts_are_missing_now_and_then(self, category: str) -> None:
        assert len({len(drawing) for drawing in drawings(category)}) >= 5

    def test_the_large_part_mostly_comes_early_but_not_always_first(self, category: str) -> None:
        places = [largest(drawing) / len(drawing) for drawing in drawings(category)]
        assert np.mean(places) < 0.35
        assert 0.04 < share(place > 0 for place in places) < 0.8

    def test_no_drawing_repeats(self, category: str) -> None:
        assert len({np.concatenate(drawing).tobytes() for drawing in drawings(category)}) == NUM_DRAWINGS


class TestLayout:
    def test_a_pigs_eyes_and_nostrils_lie_in_its_face_and_ears_stand_out_above(self) -> None:
        # Keep only faces: with a body, the head sticks out to one side; alone, as one stroke, it fills the drawing.
        faces = [
            drawing
            for drawing in drawings("pig")
            if is_ring(head := drawing[largest(drawing)])
            and sides(head).min() > 175
            and abs(middle(head) - middle(np.concatenate(drawing)))[0] < 20
        ]
        assert 0.25 * NUM_DRAWINGS < len(faces) < 0.75 * NUM_DRAWINGS
        heads = [drawing[largest(drawing)] for drawing in faces]
        details = [
            lies_in(stroke, head)
            for drawing, head in zip(faces, heads, strict=True)
            for stroke in drawing
            if is_ring(stroke) and sides(stroke).max() < 45
        ]
        assert len(details) > 2 * len(faces)
        assert np.mean(details) > 0.98
        ears = [
            sum(stroke[:, 1].min() <= head[:, 1].min() + 20 for stroke in drawing if stroke is not head)
            for drawing, head in zip(faces, heads, strict=True)
        ]
        assert share(num_ears >= 2 for num_ears in ears) > 0.6

    def test_a_bees_stripes_cross_its_body_and_its_wings_rise_above_it(self) -> None:
        stripes, wings = [], []
        for drawing in drawings("bee"):
            body = drawing[largest(drawing)]
            others = [stroke for stroke in drawing if stroke is not body]
            height = sides(body)[1]
            stripes.append(sum(lies_in(stroke, body) and sides(stroke)[1] > 0.4 * height for stroke in others))
            wings.append(sum(stroke[:, 1].min() < body[:, 1].min() and len(stroke) > 5 for stroke in others))
        assert share(number >= 2 for number in stripes) > 0.85
        assert share(number >= 2 for number in wings) > 0.8

    @pytest.mark.parametrize("category", ["car", "bus"])
    def test_wheels_hang_under_both_ends_of_the_body(self, category: str) -> None:
        both_ends = []
        for drawing in drawings(category):
            points = np.concatenate(drawing)
            floor, half = points[:, 1].max(), points[:, 0].max() / 2
            wheels = [stroke for stroke in drawing if is_ring(stroke) and middle(stroke)[1] > 0.55 * floor]
            both_ends.append({bool(middle(wheel)[0] > half) for wheel in wheels} == {False, True})
        assert np.mean(both_ends) > 0.85

    @pytest.mark.parametrize("category", ["car", "bus"])
    def test_vehicles_are_wide(self, category: str) -> None:
        assert share(sides(np.concatenate(drawing))[0] > 240 for drawing in drawings(category)) == 1

    def test_a_giraffe_is_high_and_its_head_stands_over_one_end_of_its_body(self) -> None:
        at_left = []
        for drawing in drawings("giraffe"):
            points = np.concatenate(drawing)
            width, height = sides(points)
            assert height > 1.1 * width
            head = points[points[:, 1] < 0.25 * height, 0].mean()
            assert not 0.4 * width < head < 0.6 * width
            at_left.append(head < width / 2)
        assert 0.3 < np.mean(at_left) < 0.7

    def test_a_giraffes_spots_are_often_there_and_often_missing(self) -> None:
        num_spots = [
            sum(is_ring(stroke) and sides(stroke).max() < 30 and middle(stroke)[1] > 50 for stroke in drawing)
            for drawing in drawings("giraffe")
        ]
        assert 0.1 < share(number == 0 for number in num_spots) < 0.5

    def test_most_of_a_flower_is_its_blossom_above_the_stem(self) -> None:
        mostly_above = []
        for drawing in drawings("flower"):
            points = np.concatenate(drawing)
            if sides(points)[1] > 1.5 * sides(points)[0]:
                mostly_above.append(len(points[points[:, 1] < 128]) > len(points[points[:, 1] >= 128]))
        assert len(mostly_above) > 0.6 * NUM_DRAWINGS
        assert np.mean(mostly_above) > 0.75
