"""An option is one line: its default, range and place in a run's identity, followed by its help text."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sgloc.cli.options import Reader
from sgloc.cli.train import config_type
from sgloc.config import Options, RunConfig, identity, option, rebuilt, recorded_identity
from sgloc.errors import ConfigError
from sgloc.models.sketch_a_net.config import ClassifierConfig
from sgloc.models.sketchgloc.config import Config
from sgloc.report.options import ReportOptions


@dataclass(frozen=True)
class Loss(Options, section="loss"):
    """What is minimised."""

    weight: float = option(0.5, above=0, at_most=1)
    """Weight of the ink."""
    share: float = option(0.0, at_least=0, below=1)
    """Share of the paper."""
    most: int = option(9, at_least=1, at_most=1000)
    """Most drops."""
    limit: int | None = option(None, at_least=1)
    """Limit of all."""
    speed: int = option(2, free=True)
    """How fast."""
    style: str = option("new", before="old")
    """Style of the pen."""


@dataclass(frozen=True)
class Run(RunConfig):
    """A run."""

    loss: Loss = field(default_factory=Loss)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": 0.0}, "loss.weight must be above 0 and at most 1, not 0.0"),
        ({"weight": float("nan")}, "loss.weight must be above 0 and at most 1, not nan"),
        ({"share": 1.0}, "loss.share must be at least 0 and below 1, not 1.0"),
        ({"most": 1001}, "loss.most must be from 1 to 1,000, not 1001"),
        ({"limit": 0}, "loss.limit must be null or at least 1, not 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_out_of_range_is_refused_by_its_name(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rebuilt(Loss, values)
    assert str(caught.value) == message


def test_a_resumed_run_may_change_what_is_free() -> None:
    assert "loss.speed" not in identity(Run())
    assert identity(Run(loss=Loss(weight=0.25)))["loss.weight"] == 0.25


def test_what_was_written_before_an_option_existed_has_what_was_done_then() -> None:
    written = {"loss": {"weight": 0.25, "speed": 7}, "model": {}}
    found = recorded_identity(written, Run)
    assert (found["loss.weight"], found["loss.style"], found["loss.limit"]) == (0.25, "old", None)
    assert "loss.speed" not in found
    assert rebuilt(Run, written).loss == Loss(weight=0.25, speed=7, style="old")
    with pytest.raises(TypeError, match="ink"):
        rebuilt(Run, {"loss": {"ink": 1}})


def test_the_text_below_an_option_is_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Reader("sgloc try", Run).read(["--help"])
    shown = capsys.readouterr().out
    assert "--loss.weight" in shown
    assert "Weight of the ink." in shown
    # The options of the sections shared by all runs have help too.
    assert "Seed of all randomness." in shown


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        pytest.param([], "", Config, id="nothing"),
        pytest.param(["--model.kind", "sketch_a_net"], "", ClassifierConfig, id="an option"),
        pytest.param(["--kind=sketch_a_net"], "", ClassifierConfig, id="its short name"),
        pytest.param(["--config", "FILE"], "model: {kind: sketch_a_net}", ClassifierConfig, id="a file"),
        pytest.param(["--config=FILE"], "train: {seed: 1}", Config, id="a file without a name"),
        pytest.param(["--config", "FILE"], "model: [", Config, id="a file that is no YAML"),
        pytest.param(["--config", "missing"], "", Config, id="a file that is not there"),
        pytest.param(
            ["--config", "FILE", "--model.kind", "sketch_rnn"], "model: {kind: sketch_a_net}", Config, id="both"
        ),
    ],
)
def test_the_user_names_the_model_whose_options_are_read(
    words: list[str], text: str, expected: type[RunConfig], tmp_path: Path
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    assert config_type([word.replace("FILE", str(file)) for word in words]) is expected


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown model 'sketch'; choose one of"):
        config_type(["--model.kind", "sketch"])


def test_an_option_has_its_whole_name_in_commands_without_sections_too() -> None:
    assert Reader("sgloc report", ReportOptions).read(["--train.run", "runs/mine"])["run"] == "runs/mine"
