"""`python -m benchmarks scale`: its synthetic drawings, its measurements, and resuming after a kill."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.quickdraw import category_sizes, draw_block_bytes, numbers_of, write_category
from benchmarks.scale import ScaleOptions, Visits, main, study_scale
from sgloc.data.formats.form import read_drawings
from sgloc.errors import ConfigError, DataError
from sgloc.models.sketchgloc.config import Config
from sgloc.sketch.drawing import Drawing

SKETCHES = 20_000


def measure(folder: Path, num_sketches: int = SKETCHES, **options: Any) -> dict[str, dict[str, Any]]:
    """Run a measurement and return its records, by phase or name."""
    wanted = ScaleOptions(sketches=num_sketches, folder=str(folder), **options)
    records = map(json.loads, study_scale(wanted, Config()).to_json().splitlines())
    return {record.get("phase", record["name"]): record for record in records}


def drawings(path: Path) -> list[Drawing]:
    """Return all drawings of a .bin file, checking that none is rejected."""
    found = list(read_drawings(str(path)))
    assert all(isinstance(outcome, Drawing) for outcome in found)
    return [outcome for outcome in found if isinstance(outcome, Drawing)]


def test_categories_are_as_uneven_as_those_of_quickdraw() -> None:
    sizes = category_sizes(50_000_000)
    assert (len(sizes), sizes.sum()) == (345, 50_000_000)
    assert sizes.min() == pytest.approx(70_000, rel=0.01)
    assert sizes.max() == pytest.approx(340_000, rel=0.01)
    for number in (10_000, 123_457):
        assert category_sizes(number).sum() == number
        assert category_sizes(number).min() > 0


def test_drawings_have_the_lengths_of_quickdraw_and_their_numbers_in_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "cat.bin"
    # More drawings than are generated in one chunk.
    write_category(path, range(1_000_000, 1_020_000), seed=0)
    found = drawings(path)
    key_ids = np.array([drawing.key_id for drawing in found], dtype=np.uint64)
    assert numbers_of(key_ids).tolist() == list(range(1_000_000, 1_020_000))
    points = np.array([len(drawing.stroke3) for drawing in found])
    strokes = np.array([drawing.stroke3[:, 2].sum() for drawing in found])
    assert points.mean() == pytest.approx(48, rel=0.03)
    assert strokes.mean() == pytest.approx(6, rel=0.03)
    assert points.std() == pytest.approx(25, rel=0.15)
    assert strokes.std() == pytest.approx(3.9, rel=0.3)
    assert np.corrcoef(points, strokes)[0, 1] == pytest.approx(0.62, abs=0.2)
    assert (points - 2 * strokes).min() >= 0
    places = np.concatenate([np.cumsum(drawing.stroke3[:, :2], axis=0) for drawing in found[:100]])
    assert places.min() >= 0
    assert places.max() <= 255
    assert len(np.unique(places)) == 256
    assert not list(tmp_path.glob("*.partial"))


def test_drawings_are_a_function_of_their_numbers_and_the_seed(tmp_path: Path) -> None:
    contents = []
    for name, first, seed in (("one", 0, 0), ("again", 0, 0), ("other numbers", 500, 0), ("other seed", 0, 1)):
        write_category(tmp_path / f"{name}.bin", range(first, first + 300), seed)
        contents.append((tmp_path / f"{name}.bin").read_bytes())
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3


def test_blocks_of_a_category_are_alike_and_categories_differ() -> None:
    sizes = np.full(20_000, 1024)
    category = np.arange(20_000) % 345
    lengths = draw_block_bytes(sizes, category, seed=0)
    assert lengths.mean() / 1024 == pytest.approx(210, rel=0.03)
    means = np.array([lengths[category == number].mean() for number in range(345)])
    assert means.std() / means.mean() == pytest.approx(0.36, abs=0.02)
    within = np.array([lengths[category == number].std() for number in range(345)]) / means
    assert within.mean() == pytest.approx(0.4 / 32, rel=0.1)


def test_all_is_built_and_streamed_once_and_measured(tmp_path: Path) -> None:
    records = measure(tmp_path)
    settings, visited = records["settings"], records["visited once"]
    assert (settings["sketches"], settings["categories"]) == (SKETCHES, 345)
    assert settings["mean_points"] == pytest.approx(48, rel=0.03)
    assert visited["train"] + visited["valid"] + visited["test"] == SKETCHES
    counts = {"draw": SKETCHES, "build": SKETCHES, "stream": visited["train"]}
    for phase, count in counts.items():
        record = records[phase]
        assert record["sketches"] == count
        assert record["sketches_per_second"] == pytest.approx(count / record["seconds"])
        seen = [mib for mib in record["mib_by_tenth"] if mib > 0]
        assert [record["mib_in_first_tenth"], record["mib_in_last_tenth"]] == [seen[0], seen[-1]]
        assert min(seen) > 30
    assert 1 < records["storage"]["of_bare"] <= 1.15
    shards = list((tmp_path / "shards").glob("*.tar"))
    assert len(shards) == settings["shards"]
    assert records["storage"]["bytes"] == sum(path.stat().st_size for path in shards)
    assert records["storage"]["bytes_per_sketch"] == records["storage"]["bytes"] / SKETCHES


@pytest.mark.slow
def test_memory_is_that_of_the_largest_worker(tmp_path: Path) -> None:
    # 300,000 sketches make several parts. The workers' figures must not include this memory of the parent process.
    held = bytearray(2**29)
    held[:: 2**12] = bytes(len(held[:: 2**12]))
    records = measure(tmp_path, 300_000, workers=2)
    assert len({path.name[: len("train-00000")] for path in (tmp_path / "shards").glob("train-*.tar")}) > 1
    assert records["draw"]["mib_in_last_tenth"] > len(held) / 2**20
    assert 30 < max(records["build"]["mib_by_tenth"]) < len(held) / 2**20


class KilledError(Exception):
    """Raised in place of a kill signal."""


def test_a_command_that_was_killed_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def write_some(path: Path, numbers: range, seed: int) -> None:
        if len(drawn) == 100:
            raise KilledError
        drawn.append(path.name)
        write_category(path, numbers, seed)

    with monkeypatch.context() as patch:
        patch.setattr(scale, "write_category", write_some)
        with pytest.raises(KilledError):
            measure(tmp_path)
    times = {name: (tmp_path / "source" / name).stat().st_mtime_ns for name in drawn}
    first = measure(tmp_path)
    assert {name: (tmp_path / "source" / name).stat().st_mtime_ns for name in drawn} == times
    assert len(list((tmp_path / "source").iterdir())) == 345
    again = measure(tmp_path)
    for phase in ("draw", "build"):
        assert again[phase] == first[phase]
    assert again["visited once"] == first["visited once"]


def test_another_number_of_drawings_needs_another_folder(tmp_path: Path) -> None:
    measure(tmp_path, 10_000)
    with pytest.raises(DataError, match=r"was created with .*10000.*; use these again, or another folder"):
        measure(tmp_path, 10_001)


def test_drawings_that_come_twice_and_not_at_all_are_found(tmp_path: Path) -> None:
    measure(tmp_path, 10_000)
    (tmp_path / "source" / "zebra.bin").write_bytes((tmp_path / "source" / "airplane.bin").read_bytes())
    shutil.rmtree(tmp_path / "shards")
    state = json.loads((tmp_path / "scale.json").read_text())
    del state["phases"]["build"]
    (tmp_path / "scale.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"of 10000 sketches were visited, in .* visits: some are missing or repeated"):
        measure(tmp_path, 10_000)


def test_visits_are_counted() -> None:
    def visit(*numbers: int) -> Visits:
        visits = Visits(11)
        for part in np.array_split(np.array(numbers, dtype=np.uint64), 3):
            visits.add(part)
        return visits

    all_once = visit(*reversed(range(11)))
    all_once.check()
    assert (all_once.num_visited, all_once.count, all_once.sum) == (11, 11, 55)
    for numbers in (range(10), [*range(11), 4], [*range(10), 4], [0, 0, *range(2, 11)]):
        with pytest.raises(DataError, match=f"^{len(set(numbers))} of 11 sketches were visited, in {len(numbers)} "):
            visit(*numbers).check()
    with pytest.raises(DataError, match="sketch 11 was visited, but there are only 11"):
        visit(11)


def test_a_folder_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"^folder is not set"):
        study_scale(ScaleOptions(), Config())


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["--sketches", "10000", "--folder", str(tmp_path)])
    text = capsys.readouterr().out
    for phase in ("draw", "build", "stream"):
        assert re.search(rf"│ +{phase} │ +[\d,]+ │", text)
    assert re.search(r"storage: .* times the bare 16-bit \(dx, dy\)", text)
    assert "each of all 10,000 drawings was found exactly once" in text
