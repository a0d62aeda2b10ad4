"""Output of every command: results on standard output, log lines on standard error in the requested format."""

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sgloc.cli import COMMANDS, main
from tests.patience import PATIENCE
from tests.train.launch import tiny_options

# Ordered so that each command finds its inputs; R is the common folder.
LINES = """
sample --train=4 --valid=2 --test=2 --out R/npz
shard --source R/npz --out R/shards --workers=1
shard --source R/npz/cat.npz --out R/cats --workers=1
shard --source R/npz/pig.npz --out R/pigs --workers=1
shards verify R/shards --workers=1
shards stats R/shards
shards merge R/cats R/pigs --out R/both
checkpoint list R/run
checkpoint verify R/run
checkpoint show R/run
checkpoint export R/run --out R/model
generate --checkpoint R/run --data R/shards --out R/drawn --count=2 --max_points=9 --device=cpu
evaluate --checkpoint R/run --data R/shards --out R/evaluated --resamples=9 --max_points=9 --device=cpu
reorganize R/two.json --checkpoint R/run --out R/moved --device=cpu
report R/run --examples=1 --count=4 --device=cpu
doctor --device=cpu
"""
_DETAILED = re.compile(r"\d\d:\d\d:\d\d rank 0 sgloc\.\S+ [A-Z]+: ")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the variables that a command sets for its child processes."""
    for name in ("SGLOC_LOG_LEVEL", "SGLOC_LOG_FORMAT", "SGLOC_DEBUG"):
        monkeypatch.setenv(name, "")


def is_right(form: str, line: str) -> bool:
    """Return whether a line of standard error has the requested format."""
    if form == "quiet":
        # The expected warning of a model that has learned nothing.
        return line.startswith("the model drew nothing for two")
    if form == "verbose":
        return _DETAILED.match(line) is not None
    return bool({"time", "level", "rank", "module", "message"} <= json.loads(line).keys())


@pytest.mark.parametrize(
    ("form", "words"),
    [("quiet", ["--quiet"]), ("verbose", ["--verbose"]), ("json", ["--log-format", "json"])],
    ids=["quiet", "verbose", "json"],
)
def test_every_command_speaks_as_it_is_asked_to(
    form: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.json").write_text("[[[0, 0], [9, 9]], [[5, 0], [7, 3]]]")
    commands = [line.replace("R/", f"{tmp_path}/").split() for line in LINES.strip().splitlines()]
    training = ["train", *tiny_options(tmp_path / "run", f"{tmp_path}/shards"), "--train.num_steps=2"]
    commands.insert(7, [*training, "--train.global_batch=4"])
    named = {" ".join(command[:2]) for command in commands} | {command[0] for command in commands}
    # Left out: a classifier takes too long, import-tf needs TensorFlow, and benchmarks print only results.
    assert {name for name in COMMANDS if not name.startswith("bench")} - named == {"train-classifier", "import-tf"}
    for command in commands:
        capsys.readouterr()
        # On a busy machine the doctor may report problems.
        with contextlib.suppress(SystemExit) if command[0] == "doctor" else contextlib.nullcontext():
            main([*command, *words])
        output = capsys.readouterr()
        assert [line for line in output.err.splitlines() if not is_right(form, line)] == [], command
        assert bool(output.out) == (command[0] != "train"), command
        if command[0] == "train":
            assert bool(output.err) == (form != "quiet")


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_error_is_logged(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["shards", "stats", "/nothing", "--quiet", f"--log-format={form}"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    sentence = "sgloc shards stats: /nothing/manifest.json does not exist; give a folder that `sgloc shard` wrote"
    if form == "json":
        record = json.loads(said)
        assert (record["level"], record["module"]) == ("ERROR", "sgloc.program")
        said = record["message"]
    assert said.startswith(sentence)


def test_a_form_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--log-format", "xml"], ["--log_format=xml"]):
        with pytest.raises(SystemExit) as stop:
            main(["shards", "stats", "/nothing", *words])
        assert stop.value.code == 2
        assert capsys.readouterr().err == "sgloc: --log-format must be text or json, not 'xml'\n"


@pytest.mark.parametrize("words", [["traim"], ["train", "--config", "none.yaml"]], ids=["command", "file of options"])
def test_the_traceback_of_a_mistake_on_the_command_line_is_shown_where_it_is_asked_for(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    without = capsys.readouterr().err
    assert "Traceback" not in without
    with pytest.raises(SystemExit):
        main([*words, "--debug"])
    with_it = capsys.readouterr().err
    assert with_it.startswith("Traceback (most recent call last):\n")
    assert with_it.endswith(without)


def test_help_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "sgloc", "train", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert done.stderr == "sgloc train: [Errno 28] No space left on device; free some space, then start again\n"


def test_a_rank_speaks_as_its_launcher_was_asked_to(tmp_path: Path, tiny_shards: str) -> None:
    words = ["--processes=2", "--log-format=json", "train", *tiny_options(tmp_path / "run", tiny_shards)]
    done = subprocess.run(
        [sys.executable, "-m", "launch.local", *words, "--train.num_steps=1", "--train.global_batch=4"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert {record["rank"] for record in records} == {0}
    assert any("finished at step 1" in record["message"] for record in records)
    assert logging.getLevelName(logging.INFO) in {record["level"] for record in records}
