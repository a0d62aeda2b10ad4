"""Preparation of packed sketches for the model, checked sketch by sketch against the oracle (METHOD 1, 2, 3 and 8)."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sgloc import ops
from sgloc.data.batch import FIXED_NOISE_EPOCH, PackedBatch, Preparation, concatenate
from sgloc.ops.ragged import offsets_from_lengths
from sgloc.sketch import transform
from sgloc.sketch.ragged import SketchBatch
from tests.drawings import Strokes, sketches_with_offsets, stroke3_of, stroke3s_of
from tests.oracle import layout

CPU = torch.device("cpu")
EVERYTHING = Preparation(
    scale=40.0, seed=5, disturb=0.3, max_node_points=5, augment_scale=0.1, drop_probability=0.3, translate=True
)
# Sketches long enough for every kind of noise to have an effect.
SOME: list[Strokes] = [
    [[(3, 4)] * 40, [(-5, 1)] * 30, [(2, 2)]],
    [[(1, -9)] * 60, [(7, 0)] * 8],
    [[(0, 5)] * 9, [(-30, 3)], [(4, -4)] * 50],
]

preparations = st.builds(
    Preparation,
    scale=st.floats(1, 100),
    seed=st.integers(0, 2**64 - 1),
    disturb=st.sampled_from([0.0, 0.1, 0.3]),
    max_node_points=st.sampled_from([None, 1, 3, 5]),
    augment_scale=st.sampled_from([0.0, 0.1]),
    drop_probability=st.sampled_from([0.0, 0.1, 0.9]),
    translate=st.booleans(),
    from_first_point=st.booleans(),
)


def pack(sketches: list[Strokes], key_ids: list[int], epochs: list[int]) -> PackedBatch:
    rows = [stroke3_of(strokes) for strokes in sketches]
    return PackedBatch(
        offsets=np.concatenate(rows)[:, :2],
        stroke_lengths=np.array([len(stroke) for strokes in sketches for stroke in strokes], dtype=np.int32),
        num_strokes=np.array([len(strokes) for strokes in sketches], dtype=np.int32),
        category=np.array([key_id % 7 for key_id in key_ids], dtype=np.int32),
        key_id=np.array(key_ids, dtype=np.uint64),
        epoch=np.array(epochs, dtype=np.int64),
    )


def prepare(preparation: Preparation, key_ids: list[int], epoch: int) -> SketchBatch:
    return preparation(pack([SOME[key_id % 3] for key_id in key_ids], key_ids, [epoch] * len(key_ids)), CPU)


def equal(one: SketchBatch, other: SketchBatch) -> bool:
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one))


def split_rows(table: Tensor, offsets: Tensor) -> list[Tensor]:
    return list(table.split(offsets.diff().tolist()))


@dataclasses.dataclass
class Noise:
    """The random numbers of the sketches of a batch, recovered by probing `sgloc.sketch.transform`."""

    dropped: list[list[bool]]
    factors: list[tuple[float, float]]
    moves: list[list[list[float]]]
    shares: list[tuple[float, float]]

    @classmethod
    def of(cls, sketches: list[Strokes], key: Tensor, preparation: Preparation) -> "Noise":
        lengths = torch.tensor([len(stroke) for strokes in sketches for stroke in strokes])
        strokes = offsets_from_lengths(torch.tensor([len(strokes) for strokes in sketches]))
        points = offsets_from_lengths(lengths)[strokes]
        places = torch.arange(int(points[-1]), dtype=torch.float64)[:, None].repeat(1, 2)
        # For each run of a kept point and the dropped points after it: the last position.
        last, _ = transform.drop_points(places, lengths, strokes, key, preparation.drop_probability)
        dropped = torch.ones(len(places), dtype=torch.bool)
        dropped[torch.cat([torch.zeros(1), last[:-1, 0] + 1]).long()] = False
        scaled = transform.random_scale(torch.ones_like(places), points, key, preparation.augment_scale)
        # All points at (1, 0): together with the origin, the larger side of the box is 1.
        probe = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(len(places), 1)
        moved = (transform.disturb(probe, lengths, strokes, key, 1.0) - probe)[offsets_from_lengths(lengths)[:-1]]
        # A sketch that consists only of its origin moves by -0.8 * 24 to 0.8 * 24.
        whole = transform.translations(torch.zeros_like(places), points.diff(), key, 1.0)
        return cls(
            [part.tolist() for part in split_rows(dropped, points)],
            [(float(x), float(y)) for x, y in scaled[points[:-1]]],
            [part.tolist() for part in split_rows(moved, strokes)],
            [(float(x), float(y)) for x, y in (whole + 19.2) / 38.4],
        )


@given(sketches_with_offsets(1500), preparations, st.data())
def test_preparation_is_the_method(sketches: list[Strokes], preparation: Preparation, data: st.DataObject) -> None:
    number = len(sketches)
    key_ids = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=number, max_size=number), "key_ids")
    epochs = data.draw(st.lists(st.integers(-1, 2**40), min_size=number, max_size=number), "epochs")
    batch = preparation(pack(sketches, key_ids, epochs), CPU)
    noise = Noise.of(sketches, batch.random_key, preparation)
    assert len(batch) == number
    assert batch.points.dtype == batch.targets.dtype == torch.float32
    node_lengths = split_rows(batch.node_offsets.diff(), batch.sketch_node_offsets)
    for index, strokes in enumerate(sketches):
        rows = layout.normalise(stroke3_of(strokes), preparation.scale)
        rows = layout.from_first_point(rows) if preparation.from_first_point else rows
        expected = layout.stroke5(layout.augment(rows, noise.factors[index], noise.dropped[index]))[:-1]
        lifts = np.flatnonzero(expected[:, 3]) + 1
        clean = np.split(expected[:, :2], lifts[:-1])
        moved = layout.disturb(clean, np.array(noise.moves[index]), preparation.disturb)
        if preparation.translate:
            moved, clean = (
                layout.translate(strokes, clean, noise.shares[index], preparation.scale) for strokes in (moved, clean)
            )
        here = slice(int(batch.sketch_point_offsets[index]), int(batch.sketch_point_offsets[index + 1]))
        near = 2e-6 * (1 + np.abs(expected).max() + np.abs(np.concatenate(clean)).max())
        np.testing.assert_allclose(batch.targets[here], np.concatenate(clean), rtol=0, atol=near)
        np.testing.assert_allclose(batch.points[here], np.concatenate(moved), rtol=0, atol=4 * near)
        assert batch.pen_lift[here].tolist() == expected[:, 3].astype(bool).tolist()
        stroke_lengths = np.diff(lifts, prepend=0).tolist()
        assert node_lengths[index].tolist() == layout.split_nodes(stroke_lengths, preparation.max_node_points)


def test_without_noise_inputs_are_the_targets() -> None:
    batch = Preparation(scale=2.0, seed=0)(pack([[[(2, 4), (1, 1)], [(-6, 0)]]], [9], [0]), CPU)
    assert batch.points.tolist() == batch.targets.tolist() == [[1.0, 2.0], [1.5, 2.5], [-1.5, 2.5]]
    assert batch.pen_lift.tolist() == [False, True, True]
    assert batch.node_offsets.tolist() == [0, 2, 3]


def test_with_its_origin_at_the_first_point_a_sketch_may_lie_anywhere() -> None:
    preparation = dataclasses.replace(EVERYTHING, from_first_point=True)
    moved = [[[(60, -7), *sketch[0][1:]], *sketch[1:]] for sketch in SOME]
    there, elsewhere = (preparation(pack(sketches, [0, 1, 2], [1] * 3), CPU) for sketches in (SOME, moved))
    assert equal(there, elsewhere)
    plain = Preparation(scale=40.0, seed=5, from_first_point=True)(pack(SOME, [0, 1, 2], [1] * 3), CPU)
    assert plain.targets[plain.sketch_point_offsets[:-1]].tolist() == [[0.0, 0.0]] * 3


@given(st.permutations(range(6)), st.integers(1, 6), st.integers(-1, 5))
def test_noise_does_not_depend_on_neighbours(key_ids: list[int], number: int, epoch: int) -> None:
    batch = prepare(EVERYTHING, key_ids[:number], epoch)
    for index, key_id in enumerate(key_ids[:number]):
        assert equal(batch.part(index, index + 1), prepare(EVERYTHING, [key_id], epoch))


@pytest.mark.parametrize(
    "only",
    [
        Preparation(scale=40.0, seed=5, disturb=0.3),
        Preparation(scale=40.0, seed=5, augment_scale=0.3),
        Preparation(scale=40.0, seed=5, drop_probability=0.3),
        Preparation(scale=40.0, seed=5, translate=True),
    ],
    ids=["disturb", "scale", "drop", "translate"],
)
def test_noise_depends_on_seed_epoch_and_key(only: Preparation) -> None:
    batch = prepare(only, [0], 1)
    assert equal(batch, prepare(only, [0], 1))
    # Sample 3 is the same drawing as sample 0, under another key_id.
    others = [prepare(only, [0], 2), prepare(only, [3], 1), prepare(dataclasses.replace(only, seed=6), [0], 1)]
    others += [prepare(only, [0], FIXED_NOISE_EPOCH), prepare(Preparation(scale=40.0, seed=5), [0], 1)]
    assert not any(torch.equal(batch.points, other.points) for other in others)


def test_dropping_points_leaves_the_disturbance_alone() -> None:
    # Noise for one purpose must not shift the random numbers of another.
    disturbing = Preparation(scale=40.0, seed=5, disturb=0.3)
    disturbed = prepare(disturbing, [0, 1, 2], 4)
    thinned = prepare(dataclasses.replace(disturbing, drop_probability=0.3), [0, 1, 2], 4)
    assert len(thinned.points) < len(disturbed.points)
    moves, moves_of_thinned = (
        (batch.points - batch.targets)[batch.node_offsets[:-1]] for batch in (disturbed, thinned)
    )
    torch.testing.assert_close(moves_of_thinned, moves)


def test_translation_moves_inputs_and_targets_alike_and_leaves_all_relations_as_they_were() -> None:
    plain = dataclasses.replace(EVERYTHING, translate=False)
    before, after = (prepare(preparation, list(range(60)), 3) for preparation in (plain, EVERYTHING))
    moves = (after.targets - before.targets).split(before.sketch_point_offsets.diff().tolist())
    far = torch.stack([move[0] for move in moves])
    torch.testing.assert_close(
        torch.cat([one.expand_as(move) for one, move in zip(far, moves, strict=True)]),
        torch.cat(moves),
        rtol=0,
        atol=1e-5,
    )
    torch.testing.assert_close(after.points - after.targets, before.points - before.targets, rtol=0, atol=1e-5)
    assert far.abs().amin() > 0
    assert len(far.unique(dim=0)) == 60
    before_graphs, after_graphs = (
        ops.grid_adjacency(ops.node_boxes(batch.points, batch.node_offsets), batch.sketch_node_offsets)
        for batch in (before, after)
    )
    assert torch.equal(before_graphs, after_graphs)


def test_translation_is_uniform_over_the_middle_two_thirds_of_a_large_sketch() -> None:
    # The sketch spans 0 to 200 on both axes: translations from -0.8 * 24 to 0.8 * (24 - 200).
    sketch = [[(0, 0), (200, 200)]]
    keys = list(range(4000))
    batch = Preparation(scale=20.0, seed=1, translate=True)(pack([sketch] * len(keys), keys, [0] * len(keys)), CPU)
    moves = batch.targets[::2] * 20
    for axis in moves.unbind(1):
        shares = (axis + 19.2) / (0.8 * (24 - 200) + 19.2)
        assert 0 <= shares.min() < 0.01
        assert 0.99 < shares.max() < 1
        assert abs(float(shares.mean()) - 0.5) < 0.02
        assert abs(float(shares.std()) - 12**-0.5) < 0.01
    assert abs(float(torch.corrcoef(moves.t())[0, 1])) < 0.05


batches_of_sketches = sketches_with_offsets(300).map(
    lambda sketches: pack(sketches, list(range(len(sketches))), list(range(len(sketches))))
)


def expect_sketches(batch: PackedBatch, of: PackedBatch, numbers: list[int]) -> None:
    """Assert that the batch consists of these sketches of another batch, with their metadata."""
    rows = stroke3s_of(of)
    for found, number in zip(stroke3s_of(batch), numbers, strict=True):
        np.testing.assert_array_equal(found, rows[number])
    for name in ("num_strokes", "category", "key_id", "epoch"):
        assert getattr(batch, name).tolist() == getattr(of, name)[numbers].tolist()
    assert (len(batch), batch.num_points) == (len(numbers), sum(len(rows[number]) for number in numbers))


@given(batches_of_sketches, st.data())
def test_take_copies_sketches_in_any_sequence(batch: PackedBatch, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, len(batch) - 1), max_size=9))
    expect_sketches(batch.take(np.array(numbers, dtype=np.int64)), batch, numbers)


@given(batches_of_sketches, st.data())
def test_a_part_is_some_sketches_without_a_copy(batch: PackedBatch, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(batch)))
    stop = data.draw(st.integers(start, len(batch)))
    part = batch.part(start, stop)
    expect_sketches(part, batch, list(range(start, stop)))
    # Indices into a part of a part count from that part's start.
    expect_sketches(part.part(0, stop - start), batch, list(range(start, stop)))
    assert part.offsets.base is not None


@given(batches_of_sketches, st.data())
def test_parts_put_together_are_the_whole(batch: PackedBatch, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(batch)))
    expect_sketches(concatenate([batch.part(0, cut), batch.part(cut, len(batch))]), batch, list(range(len(batch))))
