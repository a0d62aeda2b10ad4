"""`python -m benchmarks parity` and `resume`: which runs they start, and how they report the losses."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import parity, resume
from benchmarks.launched import Launcher, Run, RunOptions, small_config
from benchmarks.parity import ParityOptions, study_parity
from benchmarks.resume import ResumeOptions, study_resume
from benchmarks.tables import TableReport
from sgloc.errors import TrainingError
from sgloc.models.sketchgloc.config import Config, DecoderConfig, EncoderConfig, ModelConfig, TrainConfig
from sgloc.program import run_program

TINY = Config(
    model=ModelConfig(EncoderConfig("lstm", 4), DecoderConfig("lstm", 6, num_mixtures=2), latent_size=5),
    train=TrainConfig(global_batch=9),
)
QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def measured(what: str, **options: Any) -> list[dict[str, Any]]:
    """Return the rows and facts of a report; the shards need not exist if the launcher is stubbed."""
    wanted = {"data": "shards", "device": "cpu", **options}
    if what == "parity":
        report = study_parity(ParityOptions(**wanted), TINY)
    else:
        report = study_resume(ResumeOptions(**wanted), TINY)
    return [json.loads(line) for line in report.to_json().splitlines()][2:]


class Losses:
    """Stub of a launcher's runs of 20 steps with a checkpoint after 10; `offsets` changes the losses of some runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, offsets: dict[tuple[str, int, int], float]) -> None:
        self.started: list[tuple[str, int, int, str]] = []
        self.options: Sequence[str] = ()

        def run(
            _: Launcher,
            engine: str,
            num_ranks: int,
            accumulation: int = 1,
            resume: str = "never",
            options: Sequence[str] = (),
        ) -> Run:
            if options:
                self.options = options
                return Run("nudged", [101.0 - step for step in range(20)])
            self.started.append((engine, num_ranks, accumulation, resume))
            losses = [100.0 - step for step in range(20 if resume == "never" else 10)]
            if resume != "never":
                losses = [loss - 10 + offsets.get((engine, num_ranks, accumulation), 0.0) for loss in losses]
            else:
                losses[3] += offsets.get((engine, num_ranks, accumulation), 0.0)
            return Run(f"{engine}-{num_ranks}", losses)

        monkeypatch.setattr(Launcher, "run", run)
        monkeypatch.setattr(Run, "digests", lambda self, step: {"weights": (step, "0")})


def test_parity_compares_every_way_with_ddp_on_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Losses(monkeypatch, {("zero1", 2, 1): 0.0096, ("zero1", 2, 4): -0.0098})
    *rows, fact, nudged = measured("parity", engines=("ddp", "zero1"), world_sizes=(1, 2), accumulations=(1, 4))
    ways = [(row["engine"], row["ranks"], row["accumulation"]) for row in rows]
    assert ways == [(engine, ranks, parts) for engine in ("ddp", "zero1") for ranks in (1, 2) for parts in (1, 4)]
    assert [started[:3] for started in runs.started] == ways
    assert [row["difference"] for row in rows] == pytest.approx([0, 0, 0, 0, 0, 0, 0.0096 / 97, 0.0098 / 97])
    assert [row["result"] for row in rows] == [*["pass"] * 7, "FAIL"]
    assert fact == {"bench": "parity", "name": "result", "passed": 7, "of": 8}
    assert nudged["difference"] == 1 / 81
    assert runs.options == ("--optimizer.learning_rate", repr(TINY.optimizer.learning_rate * (1 + 1e-7)))


def test_resume_goes_through_the_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Losses(monkeypatch, {("zero3", 2, 1): 0.00005, ("zero3", 1, 1): 0.0002})
    *rows, fact = measured("resume", engines=("ddp", "zero3"), world_sizes=(1, 2), steps=10)
    keys = ("engine", "ranks", "next_engine", "next_ranks", "result")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("ddp", 2, "ddp", 2, "pass"),
        ("ddp", 2, "ddp", 1, "pass"),
        ("ddp", 1, "ddp", 2, "pass"),
        # Within a millionth, but not bit-identical.
        ("zero3", 2, "zero3", 2, "FAIL"),
        ("zero3", 2, "zero3", 1, "FAIL"),
        ("zero3", 1, "zero3", 2, "pass"),
        ("ddp", 2, "zero3", 2, "pass"),
        ("zero3", 2, "ddp", 2, "pass"),
    ]
    assert fact["passed"] == 6
    # Each combination runs to the end once; all resumed runs start from its middle checkpoint.
    never = [started[:2] for started in runs.started if started[3] == "never"]
    assert sorted(never) == [("ddp", 1), ("ddp", 2), ("zero3", 1), ("zero3", 2)]
    assert ("zero3", 1, 1, "zero3-2/checkpoints/step-00000010") in runs.started


def test_other_weights_are_not_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    Losses(monkeypatch, {})
    assert measured("resume", engines=("ddp",), world_sizes=(1,), steps=10)[0]["result"] == "pass"
    digests = iter(range(2))
    monkeypatch.setattr(Run, "digests", lambda self, step: {"weights": (step, str(next(digests)))})
    assert measured("resume", engines=("ddp",), world_sizes=(1,), steps=10)[0]["result"] == "FAIL"


def test_without_deepspeed_its_engines_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    runs = Losses(monkeypatch, {})
    for what in ("parity", "resume"):
        *rows, fact = measured(what, engines=("ddp", "zero1", "zero2"), world_sizes=(1,), steps=10)
        assert {row["engine"] for row in rows if "engine" in row} == {"ddp"}
        assert fact["why"] == "zero1, zero2 skipped: DeepSpeed is not installed (pip install 'sgloc[deepspeed]')"
    assert {started[0] for started in runs.started} == {"ddp"}


def test_real_runs_are_the_same(sample_shards: str) -> None:
    row, fact, nudged = measured(
        "parity", data=sample_shards, engines=("zero1",), world_sizes=(2,), accumulations=(2,), steps=12
    )
    assert 0 < row["difference"] < 1e-4
    assert fact["passed"] == 1
    assert 0 < nudged["difference"] < 1e-4
    # Without data, the study builds its own shards.
    row, fact = measured("resume", engines=("ddp",), world_sizes=(1,), steps=2, batch=5, data=None)
    assert (row["difference"], row["result"]) == (0, "pass")


def test_a_run_that_fails_is_told(sample_shards: str) -> None:
    with pytest.raises(
        TrainingError, match=r"ddp on 1 rank\(s\) with 1 micro-batch\(es\) failed: sgloc train: .* does not exist"
    ):
        measured("parity", data=str(Path(sample_shards).parent), engines=("ddp",), world_sizes=(1,), steps=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engines", "ddp,zero4"], "engines must be among ddp, zero0, zero1, zero2, zero3, not 'zero4'"),
        (["--accumulations", "1,0"], "accumulations must be integers of at least 1, separated by commas, not 1,0"),
        (["--accumulations", "1,two"], "--accumulations: "),
        (["--steps", "-1"], "steps must be at least 1, not -1"),
        (["--accumulation", "2"], "unknown option --accumulation; did you mean --accumulations?"),
    ],
)
def test_options_that_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_program("benchmarks", parity.main, words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_is_given_its_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given: list[tuple[RunOptions, Config]] = []

    def study(options: RunOptions, config: Config) -> TableReport:
        """Record the options and return an empty report."""
        given.append((options, config))
        return TableReport("parity", {"seen": 7})

    monkeypatch.setattr(parity, "study_parity", study)
    monkeypatch.setattr(resume, "study_resume", study)
    assert parity.main(["--world_sizes=1,3", "--engines=ddp", "--json"]) == 0
    assert '"seen": 7' in capsys.readouterr().out
    assert resume.main(["--config", str(QUICKSTART), "--batch=5"]) == 0
    (first, small), (second, large) = given
    assert first == ParityOptions(world_sizes=(1, 3), engines=("ddp",))
    assert second == ResumeOptions(batch=5)
    assert (small, large.optimizer.learning_rate) == (small_config(), 0.003)


def test_the_sizes_are_those_of_the_quickstart() -> None:
    given, config = yaml.safe_load(QUICKSTART.read_text()), small_config()
    assert_holds(given["model"], config.model)
    assert config.train.global_batch == given["train"]["global_batch"]
    assert config.data.disturb == given["data"]["disturb"]


def assert_holds(given: dict[str, Any], config: object) -> None:
    for name, value in given.items():
        if isinstance(value, dict):
            assert_holds(value, getattr(config, name))
        else:
            assert getattr(config, name) == value
