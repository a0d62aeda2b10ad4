"""The command line: every mistake is one sentence and exit code 2, and every option says what it means (DESIGN contract
6)."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import sgloc
from sgloc.cli import main
from sgloc.config import Config
from tests.checkpoints import change_manifest, flip_bit, step_path, truncate
from tests.drawings import make_drawings, write_ndjson

TINY = {
    "model": {
        "encoder": {"cell": "lstm", "hidden_size": 4},
        "decoder": {"cell": "lstm", "hidden_size": 6, "num_mixtures": 2},
        "latent_size": 5,
    },
    "data": {"num_streams": 2},
    "train": {"num_steps": 2, "global_batch": 4, "checkpoint_every": 1, "validate_every": 9, "device": "cpu"},
}
TENSOR_FILE = "__0_0.distcp"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_shards: str) -> str:
    """A file of options."""
    path = tmp_path_factory.mktemp("options") / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "data": {"path": tiny_shards, "num_streams": 2}}))
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Path:
    """A run of two steps, with a checkpoint of each; nothing may be changed."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    main(["train", "--config", tiny, "--train.run_dir", str(run_dir)])
    return run_dir


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """The same, to be spoiled."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def shards(tiny_shards: str, tmp_path: Path) -> Path:
    """Shards, to be spoiled."""
    return Path(shutil.copytree(tiny_shards, tmp_path / "shards"))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Runs a command that must fail, and gives its only line."""

    def run(*words: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        output = capsys.readouterr()
        assert caught.value.code == 2
        assert output.out == ""
        return only_sentence(output.err, str(words[0]))

    return run  # type: ignore[return-value]


def only_sentence(error: str, command: str) -> str:
    """The one line of standard error, which names the command and says more than that."""
    # A progress bar that found no terminal leaves an empty line.
    lines = [line for line in error.splitlines() if line.strip()]
    assert len(lines) == 1, error
    assert re.match(rf"sgloc( {command})?: \S+ ", lines[0])
    assert "Traceback" not in lines[0]
    return lines[0]


# Real processes.


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "sgloc: there is no command 'trian'; did you mean 'train'?; see `sgloc --help`"),
        (["train", "--data.path", "{}/none"], "sgloc train: {}/none/manifest.json does not exist; give a folder that"),
        (
            ["generate", "--checkpoint", "{}/none", "--data", "{}", "--out", "{}"],
            "sgloc generate: {}/none does not exist; give a run's folder or one of its checkpoints/step-*",
        ),
    ],
)
def test_a_real_process_says_one_sentence_and_exits_with_2(tmp_path: Path, words: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "sgloc", *(word.format(tmp_path) for word in words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert only_sentence(outcome.stderr, words[0]).startswith(sentence.format(tmp_path))
    assert list(tmp_path.iterdir()) == []


# Commands and options.


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("shrad", "there is no command 'shrad'; did you mean 'shard'?"),
        ("xyz", "there is no command 'xyz'; see"),
        ("shard --sorce a --out b", "did you mean 'source'?"),
        ("shard --out b", "--source"),
        ("shard --source a", "--out"),
        ("shard --source a --out b --sketches_per_shard many", "sketches_per_shard"),
        ("sample --out b --train 1.5", '"train"'),
        ("sample --out b --train -1", "num_train of the synthetic sample is -1"),
        ("generate --checkpiont a --data b --out c", "did you mean 'checkpoint'?"),
        ("generate --checkpoint a --data b --out c --task copy", "'synthesis', 'reorganization'"),
        ("generate --checkpoint a --data b --out c --count 0", "count must be from 1"),
        ("generate --checkpoint a --data b --out c --rows first", "rows must be some of original, disturbed, redrawn"),
        ("generate --checkpoint a --data b --out c --temperature hot", '"temperature"'),
        ("train --model.latent_siz 3", "did you mean 'model.latent_size'?"),
        ("train --model.encodr.hidden_size 3", "did you mean 'model.encoder.hidden_size'?"),
        ("train --modle.encoder.hidden_size 3", "did you mean 'model.encoder.hidden_size'?"),
        ("train --resum never", "did you mean 'resume'?"),
        ("train --train.num_steps", "--train.num_steps: expected one argument"),
        ("train stray", "unrecognized arguments: stray"),
        ("train --train.num_steps many", '"train.num_steps"'),
        ("train --train.num_steps 1.5", '"train.num_steps"'),
        ("train --model.encoder.cell gru", '"model.encoder.cell"'),
        ("train --loss.pen_loss_on_padding maybe", '"loss.pen_loss_on_padding"'),
        ("train --data.path s --train.num_steps 0", "train.num_steps must be at least 1, not 0"),
        ("train --data.path s --model.latent_size -3", "model.latent_size must be at least 1, not -3"),
        (
            "train --data.path s --optimizer.min_learning_rate 1",
            "min_learning_rate must be from 0 to the learning rate",
        ),
        ("train", "data.path is not set"),
        ("train --config none.yaml", "none.yaml"),
        ("train --config .", '"config"'),
    ],
)
def test_a_wrong_command_or_option(
    said: Callable[..., str], line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in said(*line.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {encodr: {hidden_size: 3}}", "did you mean 'model.encoder.hidden_size'?"),
        ("model: {encoder: {hiden_size: 3}}", "did you mean 'model.encoder.hidden_size'?"),
        ("train: {num_step: 3}", "did you mean 'train.num_steps'?"),
        ("tarin: {num_steps: 3}", "did you mean 'train.num_steps'?"),
        ("resum: never", "did you mean 'resume'?"),
        ("train: {num_steps: many}", '"train.num_steps"'),
        ("train: {num_steps: true}", '"train.num_steps"'),
        ("train: {num_steps: 0}\ndata: {path: s}", "train.num_steps must be at least 1, not 0"),
        ("train: {seed: null}", "train.seed has no value"),
        ("resume: null", "resume has no value"),
        ("resume: 5", '"resume"'),
        ("model:", "model.encoder.cell has no value, or its section is not one"),
        ("model: 5", "model.encoder.cell has no value, or its section is not one"),
        ("model: {encoder: []}", "model.encoder.cell has no value, or its section is not one"),
        ("model: {encoder: big}", "big"),
        ("model: [1, 2", "Problems parsing config"),
        ("model:\n\tlatent_size: 3", "Problems parsing config"),
        ("- model\n- data", "Unexpected config"),
        ("hello", "Unexpected config"),
        ("", "Unexpected config"),
        ("!!python/object/apply:os.mkdir [made]", "could not determine a constructor"),
        (b"\xff\xfe\x80\x81", "is not text"),
    ],
)
def test_a_wrong_file_of_options(
    said: Callable[..., str], text: str | bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in said("train", "--config", "c.yaml")
    assert list(tmp_path.iterdir()) == [tmp_path / "c.yaml"]


def test_a_mistake_on_the_command_line_is_told_by_rank_0_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        main(["train", "--model.latent_siz", "3"])
    assert capsys.readouterr().err == ""


def test_a_half_set_environment_is_told(said: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tiny: str) -> None:
    monkeypatch.setenv("RANK", "1")
    assert "LOCAL_RANK is not set although" in said("train", "--config", tiny)


# Places.


@pytest.mark.parametrize("place", ["none://x", "s3://bucket/x", ""])
def test_a_place_that_cannot_be_is_told(
    said: Callable[..., str], place: str, tiny: str, tiny_shards: str, trained: Path, tmp_path: Path
) -> None:
    pytest.importorskip("fsspec")
    if place.startswith("s3"):
        monkeypatch_absent = "s3fs" not in sys.modules and not _is_installed("s3fs")
        if not monkeypatch_absent:
            pytest.skip("s3fs is installed")
    reason = {"": "is not set", "none://x": "Protocol not known", "s3://bucket/x": "Install s3fs"}[place]
    good = {"--checkpoint": trained, "--data": tiny_shards, "--out": tmp_path / "out"}
    for name in good:
        words = [word for pair in {**good, name: place}.items() for word in pair]
        assert reason in said("generate", *words)
    assert reason in said("sample", "--out", place)
    assert reason in said("shard", "--source", tmp_path, "--out", place)
    assert reason in said("train", "--config", tiny, "--data.path", place)
    assert reason in said("train", "--config", tiny, "--train.run_dir", place)
    assert reason in said("train", "--config", tiny, "--train.run_dir", tmp_path / "run", "--resume", place)
    assert list(tmp_path.iterdir()) == []
