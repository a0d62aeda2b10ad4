"""Command-line options: their help texts, and the precedence of config files and options (DESIGN contract 6)."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import sgloc
from sgloc.bench.options import OPTIONS, BenchOptions
from sgloc.bench.report import Report
from sgloc.cli import main
from sgloc.config import OptimizerConfig
from sgloc.models.sketchgloc.config import Config, LossConfig, ModelConfig
from sgloc.train.schedule import learning_rate

COMMANDS = (
    *("sample", "shard", "shards verify", "train", "train-classifier", "generate", "evaluate", "reorganize", "report"),
    *("checkpoint list", "checkpoint verify", "checkpoint show", "checkpoint export", "import-tf", "doctor"),
)
_BATCH = "data config batch repeats"
# For each benchmark: its options, the default batch size and the default number of repeats.
BENCHES: dict[str, tuple[str, int, int]] = {
    "ops": (_BATCH, 1024, 10),
    "stream": (f"{_BATCH} remote", 100, 3),
    "step": (f"{_BATCH} long_sketch ceiling_size", 100, 5),
    "generate": (f"{_BATCH} ceiling_size", 256, 3),
    "checkpoint": (f"{_BATCH} out", 100, 5),
    "retrieval": ("config batch repeats ceiling_size", 20_000, 3),
}
FILE = "{data: {path: there}, model: {latent_size: 5, encoder: {hidden_size: 4}}, train: {num_steps: 2}}"
CONFIGS = Path(__file__).parents[1] / "configs"
Configured = Callable[..., tuple[Config, str]]


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A configuration file."""
    (tmp_path / "tiny.yaml").write_text(FILE)
    return str(tmp_path / "tiny.yaml")


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of every option of a configuration."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def test_help_tells_every_option_its_default_and_meaning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as caught:
        main(["train", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    options = list(leaves(Config()))
    assert len(options) > 30
    for name, default in options:
        pattern = rf"^  --{re.escape(name)} (?:{{.*}}|[A-Z_]+)\s+(.*) \(type: .*, default: (.*)\)$"
        match = re.search(pattern, text, re.MULTILINE)
        assert match, name
        assert len(match[1].strip()) > 5, name
        assert match[2] == ("null" if default is None else str(default)), name


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Configured:
    """Return a function that runs `sgloc train` and returns the configuration and the `resume` it would train with."""
    given: list[tuple[Config, str]] = []
    monkeypatch.setattr("sgloc.train.trainer.train", lambda config, resume, recipe: given.append((config, resume)))

    def run(*words: object) -> tuple[Config, str]:
        main(["train", *map(str, words)])
        return given.pop()

    return run


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[BenchOptions, Config]]:
    """Return a function that runs `sgloc bench` and returns the options and configuration it would measure with."""
    given: list[tuple[BenchOptions, Config]] = []

    def bench(name: str, options: BenchOptions, config: Config) -> Report:
        assert type(options) is OPTIONS[name]
        given.append((options, config))
        return Report(name, torch.device("cpu"))

    monkeypatch.setattr("sgloc.bench.run.bench", bench)

    def run(*words: object) -> tuple[BenchOptions, Config]:
        main(["bench", *map(str, words), "--device", "cpu", "--json"])
        return given.pop()

    return run


def test_what_print_config_prints_gives_the_same_configuration(
    capsys: pytest.CaptureFixture[str], configured: Configured, tiny: str, tmp_path: Path
) -> None:
    words = ["--config", tiny, "--model.max_node_points", "6", "--optimizer.min_learning_rate", "3e-7"]
    words += ["--train.run", "7", "--log.wandb", "offline", "--loss.pen_loss_on_padding", "true", "--resume", "no"]
    with pytest.raises(SystemExit) as caught:
        main(["train", *words, "--print_config"])
    assert caught.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    config, resume = configured(*words)
    assert (config.model.max_node_points, config.train.run, resume) == (6, "7", "no")
    assert configured("--config", tmp_path / "printed.yaml") == (config, resume)
    assert len(set(leaves(config)) - set(leaves(Config()))) == 9


@pytest.mark.parametrize("name", ["ds1", "ds2", "ds3", "all345"])
def test_the_recipes_of_the_paper_have_its_settings(configured: Configured, name: str) -> None:
    config, _ = configured("--config", CONFIGS / f"{name}.yaml")
    assert config.optimizer == OptimizerConfig(learning_rate_decay=1.0, clip_norm=1.0, clip_by="variable")
    assert config.loss == LossConfig(pen_loss_on_padding=True, density_floor=1e-6)
    assert config.model == ModelConfig()
    assert (config.data.translate, config.data.augment_scale, config.data.drop_probability) == (True, 0.1, 0.1)
    assert (config.train.validate_every, config.train.patience, config.train.global_batch) == ("1 epoch", 5, 100)
    assert [learning_rate(config.optimizer, step) for step in (0, 10**6)] == pytest.approx([1e-3] * 2)


def test_every_recipe_can_be_read(configured: Configured) -> None:
    for path in sorted(CONFIGS.glob("*.yaml")):
        if "classifier" not in path.name:
            assert configured("--config", path)[0].data.path


def test_validation_counted_in_epochs_is_given_as_words(configured: Configured, tmp_path: Path) -> None:
    (tmp_path / "epochs.yaml").write_text("data: {path: shards}\ntrain: {validate_every: 2 epochs}")
    assert configured("--config", tmp_path / "epochs.yaml")[0].train.validate_every == "2 epochs"
    for given, expected in (("1 epoch", "1 epoch"), ("250", 250)):
        config, _ = configured("--config", tmp_path / "epochs.yaml", "--train.validate_every", given)
        assert config.train.validate_every == expected


def test_options_override_the_file_wherever_they_stand(configured: Configured, tiny: str) -> None:
    option = ("--model.encoder.hidden_size", 9)
    for words in (("--config", tiny, *option), (*option, "--config", tiny), (*option, f"--config={tiny}")):
        config, _ = configured(*words)
        assert (config.model.encoder.hidden_size, config.model.latent_size, config.train.num_steps) == (9, 5, 2)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        main(words)
        overview = capsys.readouterr().out
        assert all(f"\n  {command} " in overview for command in COMMANDS)
    main(["--version"])
    assert capsys.readouterr().out == f"{sgloc.__version__}\n"


def test_help_of_a_bench_lists_what_concerns_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    main(["bench"])
    overview = capsys.readouterr().out
    assert tuple(OPTIONS) == tuple(BENCHES)
    for what, (names, batch, repeats) in BENCHES.items():
        assert re.search(rf"^  bench {what} +[A-Z].*\.$", overview, re.MULTILINE), what
        with pytest.raises(SystemExit) as caught:
            main(["bench", what, "--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        listed = re.findall(r"^  --(\w+) .*\S", text, re.MULTILINE)
        assert set(listed) == {*names.split(), "json", "device"}, what
        for name, value in (("batch", batch), ("repeats", repeats)):
            assert re.search(rf"^  --{name} .*\(type: int, default: {value}\)$", text, re.MULTILINE), what


def test_a_bench_is_given_its_options(
    measured: Callable[..., tuple[BenchOptions, Config]], tmp_path: Path, tiny: str
) -> None:
    for what in BENCHES:
        assert measured(what) == (OPTIONS[what](device="cpu"), Config())
    values: dict[str, Any] = {
        "data": str(tmp_path),
        "remote": "memory://shards",
        "batch": 7,
        "repeats": 3,
        "long_sketch": 50,
        "ceiling_size": 64,
        "out": "there",
    }
    for what, (names, _, _) in BENCHES.items():
        own = {name: values[name] for name in names.split() if name != "config"}
        options, config = measured(what, "--config", tiny, *(f"--{name}={value}" for name, value in own.items()))
        assert options == OPTIONS[what](device="cpu", **own)
        assert config.model.latent_size == 5


def test_dashes_in_names_of_options_are_as_good_as_underscores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--data.path", "a-b", "--train.run=c-d", "--train.global-batch", "7", "--print-config"])
    options = yaml.safe_load(capsys.readouterr().out)
    assert (options["data"]["path"], options["train"]["run"]) == ("a-b", "c-d")
    assert options["train"]["global_batch"] == 7
    with pytest.raises(SystemExit):
        main(["shard", "--source", str(tmp_path), "--out", str(tmp_path / "out"), "--recognised-only"])
    assert "did you mean --recognized_only?" in capsys.readouterr().err


def test_paths_are_expanded_as_a_shell_does(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    (tmp_path / "c.yaml").write_text(
        "train: {run: $HOME/runs, deepspeed: ~/zero.json}\ndata: {path: '${SCRATCH}/shards', cache: ~}"
    )
    words = ("--config", tmp_path / "c.yaml", "--resume", "$SCRATCH/old", "--data.cache=~/cache")
    config, resume = configured(*words)
    assert (config.train.run, config.train.deepspeed) == ("/home/me/runs", "/home/me/zero.json")
    assert (config.data.path, config.data.cache, resume) == ("/scratch/shards", "/home/me/cache", "/scratch/old")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --data.path s --train.run $NOWHERE/x", "train.run is '$NOWHERE/x', but the environment variable"),
        (
            "train --data.path s --train.run ~nobody-at-all/x",
            "train.run is '~nobody-at-all/x', but that user",
        ),
        ("train --data.path s --log.wandb_group=null", "log.wandb_group is 'null', which means no value; leave"),
        ("train --data.path null", "data.path is 'null', which means no value; set a value"),
        ("train-classifier --data s --train.run ${NOWHERE}", "the environment variable NOWHERE is not set"),
        (
            "shard --source a $NOWHERE/b --out c",
            "source is '$NOWHERE/b', but the environment variable NOWHERE is not set",
        ),
        (
            "shard --source a --out c --licence null",
            "licence is 'null', which means no value; leave the option out",
        ),
        ("shards verify null", "data is 'null', which means no value; set a value"),
        ("shards verify $NOWHERE", "data is '$NOWHERE', but"),
        ("shards merge a $NOWHERE --out b", "data is '$NOWHERE', but"),
        ("report $NOWHERE", "run is '$NOWHERE', but"),
        ("checkpoint export $NOWHERE --out b", "checkpoint is '$NOWHERE', but"),
        ("evaluate --checkpoint a --data b --out c --classifier $NOWHERE", "classifier is '$NOWHERE', but"),
        ("reorganize $NOWHERE --checkpoint a --out b", "drawing is '$NOWHERE', but"),
        ("doctor --run $NOWHERE", "run is '$NOWHERE', but"),
        ("bench stream --remote $NOWHERE", "remote is '$NOWHERE', but"),
    ],
)
def test_what_cannot_be_expanded_is_refused(
    line: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_path_that_is_there_needs_no_variable(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$HOME").mkdir()
    assert configured("--data.path", "$HOME")[0].data.path == "$HOME"
