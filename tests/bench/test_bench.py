"""`sgloc bench`: which measurements are taken and how they are reported. No test asserts absolute times."""

import dataclasses
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from sgloc.bench.generate import end_probability_for
from sgloc.bench.options import OPTIONS, StepOptions
from sgloc.bench.report import Report
from sgloc.bench.run import bench
from sgloc.bench.timing import Ceiling, Clock, spread
from sgloc.cli import main
from sgloc.errors import ConfigError, DataError
from sgloc.models.sketchgloc.config import Config, DecoderConfig, EncoderConfig, LossConfig, ModelConfig, TrainConfig

CPU = torch.device("cpu")
TINY = Config(
    model=ModelConfig(
        encoder=EncoderConfig(hidden_size=4),
        decoder=DecoderConfig(cell="lstm", hidden_size=6, num_mixtures=2),
        latent_size=5,
    )
)
MEASURED: dict[str, list[str]] = {
    "ops": ["boxes", "adjacency", "boxes and adjacency", "aggregate", "aggregate backward", "preparation"],
    "stream": ["stream", "stream and preparation"],
    "step": ["step", "forward", "backward", "optimizer", "step with a long sketch"],
    "generate": ["greedy, all steps forced", "sampled, real lengths"],
    "checkpoint": ["copy", "write", "verify", "load", "steps", "with a save"],
}


def run(what: str, config: Config = TINY, **options: Any) -> dict[str, dict[str, Any]]:
    """Run a small benchmark and return its records by name."""
    small = {"batch": 6, "repeats": 2, "device": "cpu", "long_sketch": 200, "ceiling_size": 16, **options}
    names = {field.name for field in dataclasses.fields(OPTIONS[what])}
    wanted = OPTIONS[what](**{name: value for name, value in small.items() if name in names})
    records = [json.loads(line) for line in bench(what, wanted, config).to_json().splitlines()]
    assert {record["bench"] for record in records} == {what}
    assert [record["name"] for record in records[:2]] == ["machine", "settings"]
    by_name = {record["name"]: record for record in records}
    assert len(by_name) == len(records)
    return by_name


def check_measurement(record: dict[str, Any]) -> None:
    """Check that the fields of a measurement are consistent."""
    seconds = record["seconds"]
    assert 0 < seconds["minimum"] <= seconds["percentile_10"] <= seconds["median"] <= seconds["percentile_90"]
    # Drawings average 6 to 48 points; the long one has 200.
    assert 2 < record["points_per_second"] / record["sketches_per_second"] < 200
    # PyTorch alone uses more than 100 MiB; no such machine has 10 TiB.
    assert 100 < record["peak_memory_mib"] < 10**7
    if "flops" in record:
        assert record["flops_per_second"] == pytest.approx(record["flops"] / seconds["median"])
        assert record["ceiling_share"] > 0


def test_ranking_is_measured_on_as_many_codes_as_asked_for() -> None:
    found = run("retrieval", batch=300)["ranks"]
    assert found["flops"] == 2 * 300 * 300 * 5
    assert 0 < found["top_1"] < found["top_10"] < found["top_50"] < 1


@pytest.mark.parametrize("from_shards", [False, True])
@pytest.mark.parametrize("what", MEASURED)
def test_each_part_is_measured_on_a_drawn_batch_and_on_shards(what: str, from_shards: bool, tiny_shards: str) -> None:
    records = run(what, data=tiny_shards if from_shards else None)
    assert [name for name in records if "seconds" in records[name]] == MEASURED[what]
    for name in MEASURED[what]:
        check_measurement(records[name])
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", records["machine"]["git"])
    assert records["machine"]["torch"] == torch.__version__
    assert records["machine"]["threads"] == torch.get_num_threads()
    assert records["settings"]["data"] == (tiny_shards if from_shards else records["settings"]["data"])
    assert records["settings"]["sketches"] == 6
    assert records["settings"]["repeats"] == 2


def test_a_step_computes_no_padding_and_says_what_it_consists_of() -> None:
    records = run("step")
    step, longer, flops = records["step"], records["step with a long sketch"], records["flops"]
    assert step["padding_share"] == longer["padding_share"] == 0
    assert step["flops"] == step["executed_flops"] == records["forward"]["flops"] + records["backward"]["flops"]
    assert sum(flops["forward"].values()) == records["forward"]["flops"]
    assert longer["flops"] > step["flops"]
    assert "flops" not in records["optimizer"]
    phases = [records[name]["seconds"]["minimum"] for name in ("forward", "backward", "optimizer")]
    assert sum(phases) <= step["seconds"]["percentile_90"] * 1.5
    assert records["long sketch ratio"]["points"] == 200
    # One round before the first measurement, and one after each of two steps' two repeats.
    assert records["ceiling"]["rounds"] == 5
    ceiling = records["ceiling"]
    assert ceiling["flops_per_second"] >= ceiling["median_flops_per_second"]
    assert ceiling["flops_per_second"] >= ceiling["torch_mm_flops_per_second"]


def test_a_step_that_computes_padding_says_so() -> None:
    padded = dataclasses.replace(TINY, loss=LossConfig(pen_loss_on_padding=True))
    assert 0.1 < run("step", padded, repeats=1)["step"]["padding_share"] < 1


def test_computing_in_parts_is_no_padding() -> None:
    config = dataclasses.replace(TINY, train=TrainConfig(accumulation=2, precision="bfloat16"))
    records = run("step", config, repeats=1)
    assert records["step"]["padding_share"] == 0
    assert records["flops"]["recomputed"]["decoder"] == records["flops"]["forward"]["decoder"]
    assert records["ceiling"]["dtype"] == "bfloat16"


def test_finished_sketches_leave_the_batch() -> None:
    records = run("generate", batch=40)
    forced, real = records["greedy, all steps forced"], records["sampled, real lengths"]
    assert forced["mean_points"] == forced["longest_points"] == 163
    assert forced["padding_share"] == real["padding_share"] == 0
    assert 25 < real["mean_points"] < 75
    assert real["executed_flops"] < 0.6 * forced["executed_flops"]


@pytest.mark.parametrize("mean", [1.0, 48.0, 120.0])
def test_the_probability_of_ending_gives_the_mean(mean: float) -> None:
    goes_on = 1 - end_probability_for(mean)
    assert sum(goes_on**step for step in range(1, 164)) == pytest.approx(mean)


def test_the_spread_of_some_times() -> None:
    assert spread([3.0, 1.0, 2.0]) == pytest.approx(
        {"median": 2.0, "minimum": 1.0, "percentile_10": 1.2, "percentile_90": 2.8}
    )


def test_each_measurement_is_compared_with_the_faster_of_the_rounds_around_it() -> None:
    ceiling = Ceiling(Clock(CPU), torch.float32, 8)
    numbers = itertools.count()
    first, second = ceiling.between([lambda: next(numbers)] * 2, 2)
    assert (first[0], second[0]) == ([0, 2], [1, 3])
    around = [max(pair) for pair in itertools.pairwise(ceiling.rounds)]
    assert (first[1], second[1]) == (around[0::2], around[1::2])
    assert len(ceiling.rounds) == 5


def test_the_table_shows_every_measurement() -> None:
    report = Report("step", CPU, {"data": "drawn", "sketches": 3})
    more: dict[str, Any] = {"flops": 512, "executed_flops": 1024, "ceilings": [2048.0, 4096.0 / 3]}
    report.add("first", [0.5, 1.5], 300, 4000, peak_memory_mib=77.0, **more)
    report.add("second", [2.0], 4, 40, extra={"tables": 3})
    report.facts.append({"name": "flops", "forward": {"strokes": 2 * 10**9}})
    measured, without = report.records()[2:4]
    # 600 sketches/s at a ceiling of 2048 FLOP/s, and 200 sketches/s at a ceiling of 4096/3 FLOP/s.
    rates = [600 / 2048e-9, 600 / 4096e-9]
    assert measured["sketches_per_second_per_gflops"] == pytest.approx(sum(rates) / 2)
    assert "sketches_per_second_per_gflops" not in without
    # 512 operations in 0.5 s reach half of 2048 FLOP/s; 512 in 1.5 s reach a quarter of 4096/3 FLOP/s.
    assert measured["ceiling_share"] == pytest.approx(0.375)
    assert measured["best_ceiling_share"] == pytest.approx(0.5)
    text = io.StringIO()
    report.print(Console(file=text, width=160, highlight=False, markup=False))
    lines = [re.sub(r"[│┃]", " ", line).split() for line in text.getvalue().splitlines()]
    first = ["first", "1,000", "600", "to", "1,400", "300", "219,726,562", "4,000", "5.12e-07", "0.375", "0.5", "77"]
    assert first in lines
    assert any(line[:2] == ["second", "2,000"] for line in lines)
    assert ["second:", "tables", "3"] in lines
    assert ["flops:", "forward", "(strokes", "2.00G)"] in lines
    assert lines[0][:5] == ["step", "on", "device", "cpu,", "processor"]


@pytest.fixture
def tiny_file(tmp_path: Path) -> str:
    """Path of a `sgloc train` configuration file with TINY's model."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"model": dataclasses.asdict(TINY.model), "resume": "never"}))
    return str(tmp_path / "tiny.yaml")


def test_the_command_prints_json_lines_and_nothing_else(
    capsys: pytest.CaptureFixture[str], tiny_file: str, tiny_shards: str
) -> None:
    words = ["--config", tiny_file, "--data", tiny_shards, "--batch", "4", "--repeats", "1", "--device", "cpu"]
    main(["bench", "step", *words, "--json"])
    output = capsys.readouterr()
    assert output.err == ""
    records = {record["name"]: record for record in map(json.loads, output.out.splitlines())}
    assert list(records)[2:7] == MEASURED["step"]
    assert records["settings"]["cells"] == "lstm 4, lstm 6"
    assert records["ceiling"]["size"] == 2048
    assert records["long sketch ratio"]["points"] == 1000


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str], tiny_file: str) -> None:
    main(["bench", "ops", "--config", tiny_file, "--batch", "4", "--repeats", "1", "--device", "cpu"])
    text = capsys.readouterr().out
    assert all(f"│ {name} " in text for name in MEASURED["ops"])
    assert "sketches 4" in text


@pytest.mark.parametrize("options", [{"batch": 1}, {"batch": -3}, {"repeats": 0}])
def test_sizes_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(options))} must be from"):
        StepOptions(**options)


def test_shards_without_training_drawings_are_refused(tmp_path: Path, tiny_shards: str) -> None:
    manifest = json.loads((Path(tiny_shards) / "manifest.json").read_text())
    manifest["splits"]["train"] |= {"points": {}, "shards": []}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for what in MEASURED:
        with pytest.raises(DataError, match="is empty; build the shards"):
            run(what, data=str(tmp_path))
