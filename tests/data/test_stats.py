"""`sgloc shards stats`, compared with counting drawing by drawing."""

import json
import math
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from sgloc.cli import main
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import load_manifest
from sgloc.data.shards.stats import Lengths, lengths_of, shard_stats
from sgloc.data.shards.stats_plot import plot_stats
from sgloc.sketch.drawing import Int16Array
from tests.drawings import write_npz


def brute_force(values: list[int]) -> Lengths:
    """Compute the statistics by definition: a percentile is the smallest length that covers its share of the values."""
    ordered = sorted(values)
    median, percentile_90, percentile_99 = (
        ordered[math.ceil(len(ordered) * percent / 100) - 1] for percent in (50, 90, 99)
    )
    return Lengths(median, statistics.fmean(values), percentile_90, percentile_99, ordered[-1])


@given(st.lists(st.integers(1, 300), min_size=1, max_size=300))
def test_lengths(values: list[int]) -> None:
    found = lengths_of(Counter(values))
    expected = brute_force(values)
    assert found is not None
    assert found.mean == pytest.approx(expected.mean, rel=1e-12)
    assert (found.median, found.percentile_90, found.percentile_99, found.longest) == (
        expected.median,
        expected.percentile_90,
        expected.percentile_99,
        expected.longest,
    )


def test_no_lengths() -> None:
    assert lengths_of({}) is None
    assert lengths_of({3: 0}) is None


def random_drawings(number: int, seed: int) -> list[Int16Array]:
    generator = np.random.default_rng(seed)
    drawings = []
    for length in generator.geometric(0.05, number).tolist():
        rows = generator.integers(-50, 50, (length, 3)).astype(np.int16)
        rows[:, 2] = generator.random(length) < 0.2
        rows[-1, 2] = 1
        drawings.append(rows)
    return drawings


@pytest.fixture(scope="module")
def drawings() -> dict[str, dict[str, list[Int16Array]]]:
    """Stroke-3 rows by category and split; one split of one category is empty."""
    return {
        "cat": {"train": random_drawings(300, 0), "valid": random_drawings(20, 1), "test": random_drawings(30, 2)},
        "alarm clock": {"train": random_drawings(150, 3), "valid": [], "test": random_drawings(7, 4)},
    }


@pytest.fixture(scope="module")
def shards(drawings: dict[str, dict[str, list[Int16Array]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counted")
    for category, splits in drawings.items():
        write_npz(folder / f"{category}.npz", **splits)
    build_shards(str(folder), str(folder / "shards"))
    return folder / "shards"


def test_stats_are_those_of_the_drawings(drawings: dict[str, dict[str, list[Int16Array]]], shards: Path) -> None:
    stats = shard_stats(load_manifest(str(shards)))
    assert stats.categories == {
        category: {**{name: len(rows) for name, rows in splits.items()}, "all": sum(map(len, splits.values()))}
        for category, splits in sorted(drawings.items())
    }
    for name, split in stats.splits.items():
        kept = [
            rows
            for splits in drawings.values()
            for of, all_rows in splits.items()
            if name in (of, "all")
            for rows in all_rows
        ]
        paths = list(shards.glob("*.tar" if name == "all" else f"{name}-*.tar"))
        assert (split.num_sketches, split.num_shards) == (len(kept), len(paths))
        assert split.num_bytes == sum(path.stat().st_size for path in paths)
        assert split.payload_bytes == sum(np.ascontiguousarray(rows[:, :2]).nbytes for rows in kept)
        for found, values in (
            (split.points, [len(rows) for rows in kept]),
            (split.strokes, [int(rows[:, 2].sum()) for rows in kept]),
        ):
            assert found is not None
            expected = brute_force(values)
            assert found.mean == pytest.approx(expected.mean)
            assert (found.median, found.percentile_90) == (expected.median, expected.percentile_90)
            assert (found.percentile_99, found.longest) == (expected.percentile_99, expected.longest)
    total = stats.splits["all"]
    assert stats.bytes_per_sketch == total.num_bytes / 507
    assert stats.bytes_over_payload == total.num_bytes / total.payload_bytes


def test_the_command_prints_a_table(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["shards", "stats", str(shards)])
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["alarm", "clock", "150", "0", "7", "157"] in lines
    assert ["2", "categories", "450", "20", "37", "507"] in lines
    stats = shard_stats(load_manifest(str(shards))).splits["train"].points
    assert stats is not None
    row = [stats.median, f"{stats.mean:.1f}", stats.percentile_90, stats.percentile_99, stats.longest]
    assert ["points", "per", "drawing", "train", *map(str, row)] in lines


def test_the_command_prints_json(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["shards", "stats", str(shards), "--json"])
    found = json.loads(capsys.readouterr().out)
    stats = shard_stats(load_manifest(str(shards)))
    assert found["categories"] == stats.categories
    assert found["splits"]["all"]["num_sketches"] == 507
    assert found["splits"]["test"]["points"]["longest"] == stats.splits["test"].points.longest  # type: ignore[union-attr]
    assert found["bytes_over_payload"] == stats.bytes_over_payload


def test_the_command_draws_a_plot(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["shards", "stats", str(shards), "--plot", str(tmp_path / "lengths.png"), "--json"])
    picture = imread(tmp_path / "lengths.png")
    assert picture.shape[0] > 500
    assert picture.shape[1] > 1500
    # Train, valid and test each have their own colour.
    colors = {tuple(color) for color in (255 * picture[..., :3]).round().astype(int).reshape(-1, 3).tolist()}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)} <= colors
    assert (tmp_path / "lengths.png").read_bytes() == plot_stats(load_manifest(str(shards)))


def test_a_plot_of_many_categories_and_of_one_point(tmp_path: Path) -> None:
    dot = np.array([[1, 2, 1]], dtype=np.int16)
    for number in range(20):
        write_npz(tmp_path / f"thing {number}.npz", train=[dot] * (number + 1))
    manifest = build_shards(str(tmp_path), str(tmp_path / "out"))
    assert plot_stats(manifest).startswith(b"\x89PNG")


def test_without_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["shards", "stats", str(tmp_path)])
    assert stop.value.code == 2
    assert "manifest.json does not exist" in capsys.readouterr().err
