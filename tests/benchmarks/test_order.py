"""`python -m benchmarks order`: its simulation against a walk through the epoch, one sketch at a time."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.order import OrderOptions, main, study_order
from benchmarks.quickdraw import write_category
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import load_manifest
from sgloc.data.order import Order
from sgloc.models.sketchgloc.config import Config
from sgloc.program import run_program
from tests.data.streams import sketches_at

PNG = b"\x89PNG\r\n\x1a\n"


def simulate(**options: Any) -> dict[str, list[dict[str, Any]]]:
    """Run a simulation and return its records, by name."""
    records: dict[str, list[dict[str, Any]]] = {}
    for line in study_order(OrderOptions(**options), Config()).to_json().splitlines():
        record = json.loads(line)
        records.setdefault(record["name"], []).append(record)
    return records


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Several thousand drawings in shards of unequal sizes with small blocks."""
    folder: Path = tmp_path_factory.mktemp("order")
    for number, size in enumerate((2900, 310, 1801)):
        first = 10_000 * number
        write_category(folder / f"category {number}.bin", range(first, first + size), seed=0)
    options = BuildOptions(per_category=0, sketches_per_block=32, sketches_per_shard=200, source_bytes_per_part=1)
    build_shards(str(folder), str(folder / "shards"), options)
    return str(folder / "shards")


@pytest.fixture(scope="module")
def order(shards: str) -> Order:
    """The order of these shards in a run with the default seed."""
    manifest = load_manifest(shards)
    assert len({shard.num_sketches for shard in manifest.splits["train"].shards}) > 2
    return Order.of_training(manifest, Config().train.seed)


def test_ranks_take_and_read_what_their_shares_of_the_epoch_say(shards: str, order: Order) -> None:
    world_sizes = (1, 2, 7, 48)
    block_bytes = [size for shard in load_manifest(shards).splits["train"].shards for size in shard.block_sizes]
    records = simulate(data=shards, world_sizes=world_sizes, batch=5)["balance of one epoch"]
    assert [record["world_size"] for record in records] == list(world_sizes)
    for record in records:
        size = record["world_size"]
        taken, read, ratio = [], [], []
        for rank in range(size):
            places = order.share(0, -(-order.num_sketches // (5 * size)), 5 * size, rank, size)
            blocks = places.block[places.epoch == 0].tolist()
            taken.append(len(blocks))
            read.append(sum(block_bytes[block] for block in set(blocks)))
            ratio.append(read[-1] / sum(block_bytes[block] / order.block_sizes[block] for block in blocks))
        assert sum(taken) == order.num_sketches
        assert (record["least_sketches"], record["most_sketches"]) == (min(taken), max(taken))
        total = sum(block_bytes)
        expected = [min(read) / total * size, max(read) / total * size, sum(read) / total, max(ratio)]
        found = [record[name] for name in ("least_bytes", "most_bytes", "all_bytes", "most_read_for_used")]
        assert found == pytest.approx(expected)
    assert records[0]["most_bytes"] == pytest.approx(1)


def test_neighbours_are_as_far_apart_as_a_walk_through_the_epoch_finds(shards: str, order: Order) -> None:
    total = order.num_sketches
    visited = sketches_at(order, order.locate(np.arange(total)))
    positions = np.empty(total, dtype=np.int64)
    positions[visited] = np.arange(total)
    apart = np.abs(np.diff(positions))
    found = {record["what"]: record for record in simulate(data=shards, world_sizes=(1,))["quality of the shuffle"]}
    for name, share in (("10 %", 0.1), ("median", 0.5), ("90 %", 0.9)):
        record = found[f"distance of neighbours, {name}, share of the epoch"]
        assert record["here"] == pytest.approx(np.quantile(apart, share) / total)
    for size in (100, 6400):
        together = (positions[1:] // size == positions[:-1] // size).mean()
        assert found[f"neighbours in one global batch of {size:,}"]["here"] == pytest.approx(together)
    shard = order.shard_of_block[order.locate(np.arange(total)).block]
    for size in (100, 1024):
        counts = [len(set(shard[start : start + size].tolist())) for start in range(0, total - size + 1, size)]
        assert found[f"shards in a batch of {size:,}"]["here"] == pytest.approx(np.mean(counts))


def test_a_perfect_shuffle_is_what_random_permutations_give(shards: str, order: Order) -> None:
    total, generator = order.num_sketches, np.random.default_rng(0)
    shards_of = np.repeat(order.shard_of_block, order.block_sizes)
    here: dict[str, list[float]] = {}
    for _ in range(30):
        positions = generator.permutation(total)
        apart = np.abs(np.diff(positions)) / total
        for name, share in (("10 %", 0.1), ("median", 0.5), ("90 %", 0.9)):
            here.setdefault(f"distance of neighbours, {name}, share of the epoch", []).append(
                float(np.quantile(apart, share))
            )
        together = (positions[1:] // 100 == positions[:-1] // 100).mean()
        here.setdefault("neighbours in one global batch of 100", []).append(float(together))
        for size in (100, 1024):
            here.setdefault(f"shards in a batch of {size:,}", []).append(len(set(shards_of[positions[:size]].tolist())))
    found = {record["what"]: record for record in simulate(data=shards, world_sizes=(1,))["quality of the shuffle"]}
    for what, values in here.items():
        assert found[what]["perfect"] == pytest.approx(np.mean(values), rel=0.05), what


def test_made_up_shards_are_as_many_and_as_uneven_as_asked_for(tmp_path: Path) -> None:
    records = simulate(sketches=200_000, world_sizes=(1, 4), plot=str(tmp_path / "order.png"))
    settings = records["settings"][0]
    assert (settings["data"], settings["sketches"], settings["shards"]) == ("made up", 200_000, 345)
    one, four = records["balance of one epoch"]
    assert (one["least_sketches"], one["most_sketches"]) == (200_000, 200_000)
    assert (one["least_bytes"], one["most_bytes"], one["most_read_for_used"]) == pytest.approx((1, 1, 1))
    assert (four["least_sketches"], four["most_sketches"]) == (50_000, 50_000)
    assert 0.8 < four["least_bytes"] < 0.999 < 1.001 < four["most_bytes"] < 1.2
    mixture = {record["what"]: record for record in records["quality of the shuffle"]}
    # Each category is one shard here.
    for size in ("100", "1,024"):
        by_shard, by_category = (mixture[f"{kind} in a batch of {size}"] for kind in ("shards", "categories"))
        assert by_shard["here"] == by_category["here"] > 90
        assert by_shard["perfect"] == by_category["perfect"]
    assert (tmp_path / "order.png").read_bytes().startswith(PNG)


def test_the_table_shows_every_row(shards: str) -> None:
    text = io.StringIO()
    options = OrderOptions(data=shards, world_sizes=(1, 3))
    study_order(options, Config()).print(Console(file=text, width=160, highlight=False, markup=False))
    lines = [line.replace("│", " ").split() for line in text.getvalue().splitlines()]
    assert any(line[:1] == ["1"] and line[3:] == ["1.000"] * 4 for line in lines)
    assert any(line[:1] == ["3"] for line in lines)
    assert any(line[:4] == ["distance", "of", "neighbours,", "median,"] and line[-1] == "0.2929" for line in lines)


def test_the_command_simulates_the_world_sizes_given(
    capsys: pytest.CaptureFixture[str], shards: str, tmp_path: Path
) -> None:
    words = ["--data", shards, "--world_sizes", "1,6", "--plot", str(tmp_path / "plot.png")]
    main([*words, "--json"])
    records = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [record["world_size"] for record in records if "world_size" in record] == [1, 6]
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)


def test_up_to_512_ranks_are_simulated_unless_others_are_named() -> None:
    world_sizes = OrderOptions().world_sizes
    assert (min(world_sizes), max(world_sizes), len(world_sizes)) == (1, 512, 15)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sketches", "9999"], "sketches must be from 10,000 to 2,147,483,647"),
        (["--sketches", str(2**31)], "sketches must be from 10,000 to 2,147,483,647"),
        (["--world_sizes", "4,0"], "world_sizes must be integers of at least 1, separated by commas, not 4,0"),
        (["--world_sizes", ""], "world_sizes must be integers of at least 1, separated by commas, not none"),
        (["--world_sizes", "1,many"], "--world_sizes: "),
        (["--plot", "/nowhere/to/plot.png"], "plot is /nowhere/to/plot.png, whose folder does not exist"),
    ],
)
def test_mistakes_end_the_study(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run_program("benchmarks", main, words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
