"""The options of the command line: what they say of themselves, and which of two wins (DESIGN contract 6)."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import sgloc
from sgloc.cli import main
from sgloc.config import Config

COMMANDS = ("sample", "shard", "shards", "train", "generate", "bench")
FILE = "{data: {path: there}, model: {latent_size: 5, encoder: {hidden_size: 4}}, train: {num_steps: 2}}"
Configured = Callable[..., tuple[Config, str]]


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A file of options."""
    (tmp_path / "tiny.yaml").write_text(FILE)
    return str(tmp_path / "tiny.yaml")


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of all options of a configuration."""
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
    """What `sgloc train` would train with, and from."""
    given: list[tuple[Config, str]] = []
    monkeypatch.setattr("sgloc.train.loop.train", lambda config, resume: given.append((config, resume)))

    def run(*words: object) -> tuple[Config, str]:
        main(["train", *map(str, words)])
        return given.pop()

    return run


def test_what_print_config_prints_gives_the_same_configuration(
    capsys: pytest.CaptureFixture[str], configured: Configured, tiny: str, tmp_path: Path
) -> None:
    words = ["--config", tiny, "--model.max_node_points", "6", "--optimizer.min_learning_rate", "3e-7"]
    words += ["--train.run_dir", "7", "--log.wandb", "offline", "--loss.pen_loss_on_padding", "true", "--resume", "no"]
    with pytest.raises(SystemExit) as caught:
        main(["train", *words, "--print_config"])
    assert caught.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    config, resume = configured(*words)
    assert (config.model.max_node_points, config.train.run_dir, resume) == (6, "7", "no")
    assert configured("--config", tmp_path / "printed.yaml") == (config, resume)
    assert len(set(leaves(config)) - set(leaves(Config()))) == 9


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


def test_dashes_in_names_of_options_are_as_good_as_underscores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--data.path", "a-b", "--train.run-dir=c-d", "--train.global-batch", "7", "--print-config"])
    options = yaml.safe_load(capsys.readouterr().out)
    assert (options["data"]["path"], options["train"]["run_dir"]) == ("a-b", "c-d")
    assert options["train"]["global_batch"] == 7
    with pytest.raises(SystemExit):
        main(["shard", "--source", str(tmp_path), "--out", str(tmp_path / "out"), "--recognised-only"])
    assert "did you mean 'recognized_only'?" in capsys.readouterr().err
