"""Selection of drawings: quotas, recognised drawings, duplicates, and a full account of real drawings."""

import dataclasses
import json
import resource
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.build.seen import SeenKeys
from sgloc.data.build.splits import split_by_key, split_quotas
from sgloc.errors import DataError
from tests.builds import folder_bytes, read_back, told
from tests.drawings import (
    make_drawings,
    real_drawings,
    stroke3_of,
    write_binary,
    write_ndjson,
    write_npz,
    write_simplified_sample,
)


def test_the_published_quotas() -> None:
    assert split_quotas(75_000) == {"train": 70_000, "valid": 2_500, "test": 2_500}
    assert sum(split_quotas(1000).values()) == 1000
    assert min(split_quotas(0).values()) > 10**18


def test_the_first_drawings_of_each_split_are_taken_until_its_quota(tmp_path: Path) -> None:
    drawings = make_drawings(3000, ["cat", "dog", "cat"])
    write_ndjson(tmp_path / "all.ndjson", drawings)
    manifest = build_shards(str(tmp_path / "all.ndjson"), str(tmp_path / "out"), BuildOptions(per_category=600))
    assert split_quotas(600) == {"train": 560, "valid": 20, "test": 20}
    num_taken = 0
    for split, quota in split_quotas(600).items():
        taken: Counter[str] = Counter()
        expected = []
        for drawing in drawings:
            if split_by_key(drawing.key_id) == split and taken[drawing.category] < quota:
                taken[drawing.category] += 1
                expected.append(drawing)
        assert taken == {"cat": quota, "dog": quota}
        assert read_back(str(tmp_path / "out"), manifest, split) == told(expected)
        num_taken += len(expected)
    assert manifest.skipped == {"beyond_per_category": 3000 - num_taken}
    everything = build_shards(str(tmp_path / "all.ndjson"), str(tmp_path / "out2"), BuildOptions(per_category=0))
    assert (everything.num_accepted, everything.skipped) == (3000, {})


def test_the_splits_of_npz_files_are_kept_whatever_the_quota(tmp_path: Path) -> None:
    rows = [stroke3_of([[(index, 1)]]) for index in range(40)]
    write_npz(tmp_path / "cat.npz", train=rows, valid=rows[:30], test=rows[:7])
    manifest = build_shards(str(tmp_path / "cat.npz"), str(tmp_path / "out"), BuildOptions(per_category=30))
    assert {name: split.num_sketches for name, split in manifest.splits.items()} == {
        "train": 40,
        "valid": 30,
        "test": 7,
    }


def test_only_recognised_drawings(tmp_path: Path) -> None:
    drawings = make_drawings(300, ["cat"])
    write_binary(tmp_path / "cat.bin", drawings)
    options = BuildOptions(recognized_only=True)
    manifest = build_shards(str(tmp_path / "cat.bin"), str(tmp_path / "out"), options)
    expected = [drawing for drawing in drawings if drawing.recognized]
    assert len(expected) == 200
    assert manifest.skipped == {"not_recognized": 100}
    found = [sketch for split in manifest.splits for sketch in read_back(str(tmp_path / "out"), manifest, split)]
    assert sorted(found) == sorted(told(expected))


def test_a_category_of_which_nothing_could_be_taken(tmp_path: Path) -> None:
    dogs = [dataclasses.replace(drawing, recognized=False) for drawing in make_drawings(9, ["dog"], first_key_id=500)]
    write_ndjson(tmp_path / "all.ndjson", [*make_drawings(90, ["cat"]), *dogs])
    options = BuildOptions(categories=["cat", "dog"], recognized_only=True)
    with pytest.raises(DataError, match="all drawings of category 'dog' were rejected or skipped"):
        build_shards(str(tmp_path / "all.ndjson"), str(tmp_path / "out"), options)


def test_a_key_id_that_comes_again_is_rejected(tmp_path: Path) -> None:
    drawings = make_drawings(2000, ["cat"])
    # Duplicates far apart in one file, and in two files of one category.
    again = [dataclasses.replace(drawing, recognized=False) for drawing in drawings[5:8]]
    (tmp_path / "new").mkdir()
    write_ndjson(tmp_path / "cat.ndjson", [*drawings, *again])
    with (tmp_path / "cat.ndjson").open("a") as stream:
        stream.write("not a drawing\n")
    write_ndjson(tmp_path / "last.ndjson", drawings[:1])
    with (tmp_path / "cat.ndjson").open("a") as stream:
        stream.write((tmp_path / "last.ndjson").read_text())
    write_ndjson(tmp_path / "new" / "cat.ndjson", [drawings[-1], *make_drawings(9, ["cat"], first_key_id=9000)])
    sources = [str(tmp_path / "cat.ndjson"), str(tmp_path / "new")]
    manifest = build_shards(sources, str(tmp_path / "out"))
    assert manifest.rejected == {"duplicate_key_id": 5, "malformed_json": 1}
    assert (manifest.num_read, manifest.num_accepted) == (2015, 2009)
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.ndjson").read_text().splitlines()]
    assert [reject["place"] for reject in rejects] == ["2001", "2002", "2003", "2004", "2005", "1"]
    assert [reject["reason"] for reject in rejects if reject["place"] != "2004"] == ["duplicate_key_id"] * 5
    found = [sketch for split in manifest.splits for sketch in read_back(str(tmp_path / "out"), manifest, split)]
    assert sorted(key_id for _, key_id, _ in found) == [*range(1, 2001), *range(9000, 9009)]


@given(st.lists(st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 2, 2**64 - 1]) | st.integers(0, 99)))
def test_seen_keys_are_found(key_ids: list[int]) -> None:
    expected: set[int] = set()
    with closing(SeenKeys()) as seen:
        for key_id in key_ids:
            assert seen.add(key_id) == (key_id not in expected)
            expected.add(key_id)


def test_seen_keys_are_found_in_little_memory() -> None:
    keys = np.random.default_rng(0).permutation(400_000).tolist()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with closing(SeenKeys()) as seen:
        assert all(map(seen.add, keys))
        assert not any(map(seen.add, keys))
    # A set of all keys would take 27 megabytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000


@pytest.mark.parametrize("origin", ["made", "real"])
def test_every_drawing_is_accounted_for_in_little_space(tmp_path: Path, origin: str) -> None:
    (tmp_path / "made").mkdir()
    folder = real_drawings() if origin == "real" else write_simplified_sample(tmp_path / "made", number=200)
    options = BuildOptions(per_category=60, recognized_only=True)
    manifest = build_shards(str(folder), str(tmp_path / "some"), options)
    num_lines = sum(path.read_bytes().count(b"\n") for path in folder.iterdir())
    assert manifest.num_read == num_lines
    assert sum(manifest.skipped.values()) > 0
    assert manifest.num_accepted + sum(manifest.rejected.values()) + sum(manifest.skipped.values()) == num_lines
    for source in manifest.sources:
        assert source.num_accepted + source.num_rejected + source.num_skipped > 0

    manifest = build_shards(str(folder), str(tmp_path / "all"))
    assert (manifest.num_accepted, manifest.rejected, manifest.skipped) == (num_lines, {}, {})
    num_bytes = sum(len(content) for name, content in folder_bytes(tmp_path / "all").items() if name.endswith(".tar"))
    payload = sum(split.num_points for split in manifest.splits.values()) * 2 * np.dtype(np.int16).itemsize
    assert num_bytes <= 1.15 * payload


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_compressed_blocks_hold_the_same(tmp_path: Path) -> None:
    pytest.importorskip("zstandard", reason="zstandard is not installed; run pip install -e '.[dev]'")
    drawings = make_drawings(3000, ["cat", "dog"])
    write_ndjson(tmp_path / "all.ndjson", drawings)
    plain = build_shards(str(tmp_path / "all.ndjson"), str(tmp_path / "plain"))
    packed = build_shards(str(tmp_path / "all.ndjson"), str(tmp_path / "packed"), BuildOptions(compression="zstd"))
    for split in plain.splits:
        found = read_back(str(tmp_path / "packed"), packed, split)
        assert found == read_back(str(tmp_path / "plain"), plain, split)
    sizes = [sum(map(len, folder_bytes(tmp_path / name).values())) for name in ("plain", "packed")]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_category": -1}, "per_category must be at least 0, not -1"),
        ({"sketches_per_block": 0}, "sketches_per_block must be at least 1, not 0"),
        ({"sketches_per_shard": 0}, "sketches_per_shard must be at least 1, not 0"),
        ({"compression": "zip"}, "compression must be none or zstd, not 'zip'"),
        ({"categories": []}, "no category was given"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BuildOptions(**options)  # type: ignore[arg-type]
