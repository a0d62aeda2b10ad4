"""Building shards: drawings round-trip, none vanishes, and the same drawings give the same bytes."""

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import webdataset
from hypothesis import given

from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.build.splits import split_by_key
from sgloc.data.manifest import load_manifest
from sgloc.errors import DataError
from sgloc.sketch.drawing import Int16Array
from tests.builds import folder_bytes, read_back, told
from tests.drawings import Strokes, make_drawings, sketches_with_offsets, stroke3_of, write_ndjson, write_npz
from tests.fuzzing import examples


@given(sketches_with_offsets(2**15 - 1))
@examples(40)
def test_npz_round_trip(tmp_path: Path, sketches: list[Strokes]) -> None:
    # Offsets keep their split and full range; clipping happens only on the way to the model.
    arrays = [*map(stroke3_of, sketches), stroke3_of([[(1, 2)]])]
    write_npz(tmp_path / "cat.npz", train=arrays, valid=arrays[:1], test=arrays[1:])
    manifest = build_shards(str(tmp_path / "cat.npz"), str(tmp_path / "out"), overwrite=True)
    assert load_manifest(str(tmp_path / "out")) == manifest
    for split, expected in (("train", arrays), ("valid", arrays[:1]), ("test", arrays[1:])):
        found = read_back(str(tmp_path / "out"), manifest, split)
        assert [rows for _, _, rows in found] == [rows.tolist() for rows in expected]
        assert {name for name, _, _ in found} <= {"cat"}


@pytest.mark.parametrize("sketches_per_shard", [1, 512, 600, 10**6])
def test_ndjson_round_trip_over_many_blocks(tmp_path: Path, sketches_per_shard: int) -> None:
    drawings = make_drawings(1500, ["cat", "The Great Wall of China", "dog"], first_key_id=2**64 - 1500)
    write_ndjson(tmp_path / "all.ndjson", drawings)
    out = str(tmp_path / "out")
    options = BuildOptions(sketches_per_shard=sketches_per_shard, sketches_per_block=256)
    manifest = build_shards(str(tmp_path / "all.ndjson"), out, options)
    for name, split in manifest.splits.items():
        expected = [drawing for drawing in drawings if split_by_key(drawing.key_id) == name]
        assert read_back(out, manifest, name) == told(expected)
        assert split.num_sketches == len(expected) == sum(shard.num_sketches for shard in split.shards)
        assert split.num_points == sum(len(drawing.stroke3) for drawing in expected)
        assert split.num_strokes == 2 * len(expected)
        assert split.categories == Counter(drawing.category for drawing in expected)
        for shard in split.shards:
            assert shard.num_sketches <= sketches_per_shard
            if shard != split.shards[-1]:
                assert shard.num_sketches == {1: 1, 512: 512, 600: 512}[sketches_per_shard]
            assert shard.num_bytes == (tmp_path / "out" / shard.path).stat().st_size
    assert (manifest.longest_points, manifest.longest_strokes) == (4, 2)
    assert manifest.categories == ["The Great Wall of China", "cat", "dog"]


def test_uneven_drawings_are_counted(tmp_path: Path) -> None:
    long_one = np.random.default_rng(0).integers(-999, 1000, (10000, 3)).astype(np.int16)
    long_one[:, 2] = np.arange(1, 10001) == 10000
    many_strokes = stroke3_of([[(1, 1)]] * 300)
    write_npz(tmp_path / "cat.npz", train=[many_strokes, stroke3_of([[(3, 4)]])], test=[long_one])
    manifest = build_shards(str(tmp_path / "cat.npz"), str(tmp_path / "out"))
    assert (manifest.longest_points, manifest.longest_strokes) == (10000, 300)
    ((_, _, rows),) = read_back(str(tmp_path / "out"), manifest, "test")
    assert rows == long_one.tolist()


def test_the_same_drawings_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    drawings = make_drawings(700)
    folders = [tmp_path / name for name in ("here", "somewhere else")]
    for folder in folders:
        folder.mkdir()
        for name in ("cat", "dog"):
            write_ndjson(folder / f"{name}.ndjson", [drawing for drawing in drawings if drawing.category == name])
        with (folder / "cat.ndjson").open("a") as stream:
            stream.write("{}\n")
    built = []
    for index, folder in enumerate([folders[0], folders[0], folders[1]]):
        build_shards(str(folder), str(tmp_path / f"out{index}"))
        built.append(folder_bytes(tmp_path / f"out{index}"))
    assert built[0] == built[1] == built[2]
    identities = [load_manifest(str(tmp_path / f"out{index}")).identity for index in range(3)]
    assert len(set(identities)) == 1
    write_ndjson(folders[0] / "dog.ndjson", make_drawings(350, ["dog"], seed=1))
    assert build_shards(str(folders[0]), str(tmp_path / "out3")).identity != identities[0]


def test_nothing_vanishes(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "a.ndjson", make_drawings(90, ["cat", "dog", "pig"]))
    with (tmp_path / "a.ndjson").open("a") as stream:
        stream.write('{"word": "dög"}\nnot json\n\n')
    rows = stroke3_of([[(1, 2), (3, 4)]])
    write_npz(tmp_path / "cat.npz", train=[rows, rows[:0], rows], valid=[rows[:1]])
    manifest = build_shards(str(tmp_path), str(tmp_path / "out"), BuildOptions(categories=["cat", "dog"]))

    assert manifest.num_read == 90 + 3 + 4
    assert manifest.skipped == {"other_category": 30}
    expected = {"blank_line": 1, "empty_drawing": 1, "malformed_json": 1, "missing_field": 1, "open_last_stroke": 1}
    assert manifest.rejected == expected
    accepted = sum(split.num_sketches for split in manifest.splits.values())
    assert accepted + sum(manifest.rejected.values()) + 30 == manifest.num_read
    told_sources = [
        (source.name, source.num_accepted, source.num_rejected, source.num_skipped) for source in manifest.sources
    ]
    assert told_sources == [("a.ndjson", 60, 3, 30), ("cat.npz", 2, 2, 0)]
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.ndjson").read_text().splitlines()]
    assert Counter(reject["reason"] for reject in rejects) == expected
    places = [(reject["source"], reject["place"]) for reject in rejects]
    assert places == [
        ("a.ndjson", "91"),
        ("a.ndjson", "92"),
        ("a.ndjson", "93"),
        ("cat.npz", "train[1]"),
        ("cat.npz", "valid[0]"),
    ]
    assert all(reject["detail"] for reject in rejects)


def test_only_wanted_categories_are_taken(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog", "pig")):
        write_ndjson(tmp_path / f"{name}.ndjson", make_drawings(100, [name], first_key_id=100 * number))
    manifest = build_shards(str(tmp_path), str(tmp_path / "out"), BuildOptions(categories=["pig", "cat"]))
    assert sorted(manifest.categories) == ["cat", "pig"]
    assert [source.name for source in manifest.sources] == ["cat.ndjson", "pig.ndjson"]
    assert manifest.num_read == 200
    assert {name for name, _, _ in read_back(str(tmp_path / "out"), manifest, "train")} == {"cat", "pig"}


def test_a_category_given_twice_is_taken_once(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(100, ["cat"]))
    manifest = build_shards(str(tmp_path), str(tmp_path / "out"), BuildOptions(categories=["cat", "cat"]))
    assert manifest.num_read == 100


def test_all_files_of_a_wanted_category_are_taken(tmp_path: Path) -> None:
    folders = [tmp_path / "old", tmp_path / "new"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        write_ndjson(folder / "cat.ndjson", make_drawings(100, ["cat"], first_key_id=100 * number))
    options = BuildOptions(categories=["cat"])
    manifest = build_shards([str(folder) for folder in folders], str(tmp_path / "out"), options)
    assert manifest.num_read == 200


def expect_unknown(folder: Path, wanted: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_shards(str(folder), str(folder / "out"), BuildOptions(categories=["cat", wanted]))
    with pytest.raises(DataError, match=r"manifest\.json does not exist"):
        load_manifest(str(folder / "out"))


def test_an_unknown_category_names_the_nearest_file(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_ndjson(tmp_path / f"{name}.ndjson", make_drawings(60, [name]))
    expect_unknown(tmp_path, "gog", "no drawing of category 'gog'; did you mean 'dog'")
    expect_unknown(tmp_path, "zzzzzz", "the source has no drawing of category 'zzzzzz'$")


def test_a_mistyped_category_of_npz_files_costs_nothing(tmp_path: Path) -> None:
    for name in ("cat", "dog.full"):
        write_npz(tmp_path / f"{name}.npz", train=[stroke3_of([[(0, 0), (9, 9)]])], valid=[], test=[])
    out = tmp_path / "out"
    build_shards(str(tmp_path), str(out), BuildOptions(categories=["dog"]))
    before = folder_bytes(out)
    with pytest.raises(DataError, match=r"no drawing of category 'gog'; did you mean 'dog'"):
        build_shards(str(tmp_path), str(out), BuildOptions(categories=["cat", "gog"]), overwrite=True)
    assert folder_bytes(out) == before
    assert load_manifest(str(out)).categories == ["dog"]


def test_an_unknown_category_names_the_nearest_word(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "all.ndjson", make_drawings(60, ["cat", "dog"]))
    expect_unknown(tmp_path, "gog", "no drawing of category 'gog'; did you mean 'dog'")


def test_overwriting_needs_to_be_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(1500, ["cat"]))
    build_shards(str(tmp_path / "cat.ndjson"), str(out), BuildOptions(sketches_per_shard=256))
    before = folder_bytes(out)
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(100, ["cat"]))
    with pytest.raises(DataError, match=f"{out} already holds shards.*overwrite them"):
        build_shards(str(tmp_path / "cat.ndjson"), str(out))
    assert folder_bytes(out) == before
    (out / "mine.txt").write_text("not a shard")

    build_shards(str(tmp_path / "cat.ndjson"), str(out), overwrite=True)
    build_shards(str(tmp_path / "cat.ndjson"), str(tmp_path / "fresh"))
    assert folder_bytes(out) == {"mine.txt": b"not a shard"} | folder_bytes(tmp_path / "fresh")


@pytest.mark.parametrize("old", ["{", '{"format": "sgloc-shards", "version": 0}'], ids=["not-json", "version-0"])
def test_damaged_shards_can_be_overwritten(tmp_path: Path, old: str) -> None:
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(100, ["cat"]))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(old)
    manifest = build_shards(str(tmp_path / "cat.ndjson"), str(tmp_path / "out"), overwrite=True)
    assert load_manifest(str(tmp_path / "out")) == manifest


def test_overwriting_removes_nothing_outside_the_folder(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(100, ["cat"]))
    build_shards(str(tmp_path / "cat.ndjson"), str(tmp_path / "out"))
    path = tmp_path / "out" / "manifest.json"
    path.write_text(path.read_text().replace("train-00000-00000.tar", "../precious.txt"))
    (tmp_path / "precious.txt").write_text("keep me")
    with contextlib.suppress(DataError):
        build_shards(str(tmp_path / "cat.ndjson"), str(tmp_path / "out"), overwrite=True)
    assert (tmp_path / "precious.txt").exists()


def test_a_killed_build_is_not_mistaken_for_a_whole_one(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(3000, ["cat"]))
    out = str(tmp_path / "out")
    options = BuildOptions(sketches_per_shard=256)

    def kill(_num_built: int, _num_parts: int, num_read: int, _num_rejected: int) -> None:
        if num_read > 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_shards(str(tmp_path / "cat.ndjson"), out, options, progress=kill)
    assert list((tmp_path / "out").glob("train-*.tar"))
    with pytest.raises(DataError, match=r"out/manifest\.json does not exist.*sgloc shard"):
        load_manifest(out)
    # The interrupted build does not block a new one.
    manifest = build_shards(str(tmp_path / "cat.ndjson"), out, options)
    assert len(read_back(out, manifest, "train")) == manifest.splits["train"].num_sketches


def test_scale_is_the_standard_deviation_of_the_clipped_training_offsets(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def arrays(number: int, spread: float) -> list[Int16Array]:
        return [
            stroke3_of([[(int(dx), int(dy)) for dx, dy in generator.normal(3, spread, (9, 2))]]) for _ in range(number)
        ]

    train = arrays(50, 900)
    write_npz(tmp_path / "cat.npz", train=train, valid=arrays(9, 10), test=arrays(9, 10))
    manifest = build_shards(str(tmp_path / "cat.npz"), str(tmp_path / "out"))
    offsets = np.concatenate(train)[:, :2].astype(np.float64)
    assert np.abs(offsets).max() > 1000
    assert manifest.scale == pytest.approx(np.std(np.clip(offsets, -1000, 1000)), rel=1e-12)


def test_drawings_without_a_split_are_split_by_their_key() -> None:
    splits = Counter(split_by_key(key_id) for key_id in range(90000))
    assert set(splits) == {"train", "valid", "test"}
    for split in ("valid", "test"):
        assert splits[split] == pytest.approx(3000, abs=4 * np.sqrt(3000))
    # The assignment is part of a data set's identity: a drawing never changes splits.
    assert [key_id for key_id in range(100) if split_by_key(key_id) == "valid"] == [19, 46, 83, 90]
    assert [key_id for key_id in range(100) if split_by_key(key_id) == "test"] == [44, 58, 61, 88]
    assert split_by_key(2**64 - 1) == "train"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"valid": [stroke3_of([[(1, 2)]])]}, "none of the 1 drawings taken is in the training split"),
        ({"train": [stroke3_of([[(5, 5), (5, 5)]])]}, "all offsets of the training drawings are equal"),
    ],
)
def test_what_nothing_can_be_trained_on_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    write_npz(tmp_path / "cat.npz", **arrays)
    with pytest.raises(DataError, match=message):
        build_shards(str(tmp_path / "cat.npz"), str(tmp_path / "out"))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(100, ["cat"]))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write shards to .*file/out"):
        build_shards(str(tmp_path / "cat.ndjson"), str(tmp_path / "file" / "out"))


def test_progress_tells_parts_and_drawings(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_ndjson(tmp_path / f"{name}.ndjson", make_drawings(50, [name]))
    with (tmp_path / "dog.ndjson").open("a") as stream:
        stream.write("{}\n")
    calls: list[tuple[int, ...]] = []
    options = BuildOptions(source_bytes_per_part=1)
    build_shards(str(tmp_path), str(tmp_path / "out"), options, progress=lambda *call: calls.append(call))
    assert calls[:2] == [(0, 2, 0, 0), (0, 2, 50, 0)]
    assert calls[-1] == (2, 2, 101, 1)
    assert calls == sorted(calls)


# webdataset leaves a local file open until it is garbage-collected.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    drawings = make_drawings(600)
    write_ndjson(tmp_path / "all.ndjson", drawings)
    options = BuildOptions(sketches_per_block=256)
    manifest = build_shards(str(tmp_path / "all.ndjson"), str(tmp_path / "out"), options)
    (shard,) = manifest.splits["train"].shards
    blocks = list(webdataset.WebDataset(str(tmp_path / "out" / shard.path), shardshuffle=False).decode())
    assert [block["__key__"] for block in blocks] == ["000000", "000001", "000002"]
    arrays = {name: np.concatenate([block["npz"][name] for block in blocks]) for name in blocks[0]["npz"]}
    expected = [drawing for drawing in drawings if split_by_key(drawing.key_id) == "train"]
    rows = np.concatenate([drawing.stroke3 for drawing in expected])
    assert arrays["offsets"].dtype == np.int16
    np.testing.assert_array_equal(arrays["offsets"], rows[:, :2])
    np.testing.assert_array_equal(np.cumsum(arrays["stroke_lengths"]) - 1, np.flatnonzero(rows[:, 2]))
    np.testing.assert_array_equal(arrays["num_strokes"], np.full(len(expected), 2))
    assert [manifest.categories[number] for number in arrays["category"]] == [drawing.category for drawing in expected]
    assert arrays["key_id"].tolist() == [drawing.key_id for drawing in expected]
    assert arrays["recognized"].tolist() == [drawing.recognized for drawing in expected]


def test_shards_can_stand_behind_a_url(tmp_path: Path) -> None:
    write_ndjson(tmp_path / "all.ndjson", make_drawings(700))
    url, options = f"memory://{tmp_path.name}/shards", BuildOptions(sketches_per_shard=256)
    try:
        manifest = build_shards(str(tmp_path / "all.ndjson"), url, options)
        assert manifest == build_shards(str(tmp_path / "all.ndjson"), str(tmp_path / "out"), options)
        assert load_manifest(url) == manifest
        for split in manifest.splits:
            assert read_back(url, manifest, split) == read_back(str(tmp_path / "out"), manifest, split)
        with pytest.raises(DataError, match="already holds shards"):
            build_shards(str(tmp_path / "all.ndjson"), url)
        write_ndjson(tmp_path / "all.ndjson", make_drawings(100))
        build_shards(str(tmp_path / "all.ndjson"), url, overwrite=True)
        left = fsspec.filesystem("memory").glob(f"/{tmp_path.name}/shards/train-*.tar")
        assert [path.rsplit("/", 1)[-1] for path in left] == ["train-00000-00000.tar"]
    finally:
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
