"""Weights & Biases: read back the offline files that a run writes, and check that training survives W&B failures."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

import sgloc
from sgloc import log
from sgloc.config import LogConfig
from sgloc.errors import ConfigError
from sgloc.models.sketchgloc.config import Config, DataConfig
from sgloc.train.loggers import wandb as sgloc_wandb
from sgloc.train.loggers.base import Loggers
from sgloc.train.loggers.open import with_environment
from sgloc.train.loggers.wandb import WeightsAndBiases
from tests.patience import PATIENCE
from tests.train.launch import children
from tests.train.runs import make_config, records, train

FAKE_KEY = "0123456789abcdef0123456789abcdef01234567"
PASSWORD = "open-sesame"

# Layout of a .wandb file: a header, then fixed-size blocks of records; a record may be split into several pieces.
FILE_HEADER, BLOCK, PIECE_HEADER = 7, 32768, struct.Struct("<IHB")
WHOLE, FIRST, LAST = 1, 2, 4


def read_offline_run(folder: Path) -> Iterator[Record]:
    """Yield the records of the transaction log (.wandb file) in a W&B run folder."""
    (path,) = folder.glob("*.wandb")
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    position, whole = FILE_HEADER, b""
    while len(content) - position >= PIECE_HEADER.size:
        room = BLOCK - position % BLOCK
        if room < PIECE_HEADER.size:
            position += room
            continue
        _, length, kind = PIECE_HEADER.unpack_from(content, position)
        position += PIECE_HEADER.size
        whole = (b"" if kind in (WHOLE, FIRST) else whole) + content[position : position + length]
        position += length
        if kind in (WHOLE, LAST):
            yield Record.FromString(whole)


def history(folder: Path) -> list[dict[str, Any]]:
    """Return the logged values, one dictionary per record, keyed by metric name."""
    return [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in entry.history.item}
        for entry in read_offline_run(folder)
        if entry.HasField("history")
    ]


def steps(folder: Path, name: str) -> list[int]:
    return [line["step"] for line in history(folder) if name in line]


def offline_runs(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("wandb/offline-run-*"))


def files_with(folder: Path, secret: str) -> list[str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert paths
    return [str(path) for path in paths if secret.encode() in path.read_bytes()]


def with_wandb(config: Config, **options: Any) -> Config:
    return Config(model=config.model, data=config.data, train=config.train, log=LogConfig(**options))


def record(step: int) -> dict[str, Any]:
    return {"step": step, "event": "train", "loss": step / 10}


@pytest.fixture(autouse=True)
def _with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text(f"machine 127.0.0.1\n  login user\n  password {FAKE_KEY[::-1]}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)


@pytest.mark.parametrize(
    ("given", "environment", "mode", "project"),
    [
        pytest.param({}, {}, "disabled", "sketchgloc", id="nothing"),
        pytest.param({}, {"WANDB_MODE": "offline", "WANDB_PROJECT": "mine"}, "offline", "mine", id="variables"),
        pytest.param({}, {"WANDB_MODE": "dryrun"}, "offline", "sketchgloc", id="old word"),
        pytest.param({}, {"WANDB_MODE": "online", "WANDB_DISABLED": "true"}, "disabled", "sketchgloc", id="disabled"),
        pytest.param(
            {"wandb": "online", "wandb_project": "given"},
            {"WANDB_MODE": "disabled", "WANDB_PROJECT": "mine"},
            "online",
            "given",
            id="options",
        ),
    ],
)
def test_an_option_that_is_not_given_beats_no_variable(
    given: dict[str, Any], environment: dict[str, str], mode: str, project: str
) -> None:
    log = with_environment(LogConfig(**given), {**environment, "WANDB_ENTITY": "team", "WANDB_NAME": "one"})
    assert (log.wandb, log.wandb_project) == (mode, project)
    assert (log.wandb_entity, log.wandb_name, log.wandb_group) == ("team", "one", "")
    with pytest.raises(ConfigError, match="WANDB_MODE is 'sometimes', not one of disabled, offline, dryrun, on"):
        with_environment(LogConfig(), {"WANDB_MODE": "sometimes"})


def test_a_run_is_logged_as_the_environment_says(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"MODE": "offline", "PROJECT": "mine", "RUN_GROUP": "group", "DIR": str(tmp_path), "RUN_ID": "abc"}
    for name, value in variables.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    run_dir = tmp_path / "run"
    config = make_config(sample_shards, run_dir)
    train(dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=1)), "auto")
    (folder,) = offline_runs(tmp_path)
    run = next(entry.run for entry in read_offline_run(folder) if entry.HasField("run"))
    assert (run.run_id, run.project, run.run_group) == ("abc", "mine", "group")
    log = yaml.safe_load((run_dir / "config.yaml").read_text())["log"]
    assert (log["wandb"], log["wandb_project"], log["wandb_group"]) == ("offline", "mine", "group")


def test_a_resumed_run_continues_its_curves(
    sample_shards: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_config(sample_shards, tmp_path, checkpoint_every=4)
    config = with_wandb(config, wandb="offline", wandb_group="group", wandb_name="name", gallery=2)
    train(config, "auto")
    # Simulate a kill after step 8 but before its checkpoint was written.
    shutil.rmtree(tmp_path / "checkpoints/step-00000008")
    capfd.readouterr()
    train(config, "auto")
    out, err = capfd.readouterr()
    first, second = offline_runs(tmp_path)
    assert shlex.split(err.splitlines()[-1]) == ["wandb", "sync", str(first), str(second)]
    runs = [
        next(entry.run for entry in read_offline_run(folder) if entry.HasField("run")) for folder in (first, second)
    ]
    assert runs[0].run_id == runs[1].run_id
    assert first.name.endswith(runs[0].run_id)
    assert {(run.project, run.run_group, run.display_name) for run in runs} == {("sketchgloc", "group", "name")}
    assert steps(first, "train/loss") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert steps(second, "train/loss") == [5, 6, 7, 8]
    options = {item.key: json.loads(item.value_json) for item in runs[1].config.update}
    assert options["train"]["global_batch"] == 16
    assert options["versions"]["sgloc"] == sgloc.__version__
    assert "git" in options["versions"]
    axes = {
        entry.metric.glob_name: entry.metric.step_metric
        for entry in read_offline_run(second)
        if entry.HasField("metric")
    }
    assert axes["*"] == "step"
    expected = {f"train/{name}": value for name, value in records(tmp_path, "train")[-1].items()}
    found = next(line for line in reversed(history(second)) if "train/loss" in line)
    for name in ("loss", "gradient_norm", "learning_rate", "sketches_per_second"):
        assert found[f"train/{name}"] == expected[f"train/{name}"]
    assert steps(first, "validation/loss") == steps(first, "gallery/generated.path") == [4, 8]
    (shown,) = [line["gallery/reorganized.path"] for line in history(second) if "gallery/reorganized.path" in line]
    assert (second / "files" / shown).read_bytes().startswith(b"\x89PNG")
    for secret in (FAKE_KEY, FAKE_KEY[::-1]):
        assert files_with(tmp_path, secret) == []
        assert secret not in out + err


def test_a_server_that_does_not_answer_delays_nothing_and_the_run_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = Config(
        data=DataConfig(path=f"https://me:{PASSWORD}@host/shards"), log=LogConfig(wandb="online", wandb_timeout=1)
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        logger = Loggers(WeightsAndBiases(config, "abcd1234", str(tmp_path)))
        for step in range(1, 6):
            logger.log(record(step))
        # W&B itself gives up only after three seconds; logging must not wait for that.
        assert time.monotonic() - start < 1.5
        logger.close()
    out, err = capfd.readouterr()
    (folder,) = offline_runs(tmp_path)
    assert steps(folder, "train/loss") == [1, 2, 3, 4, 5]
    told = err.splitlines()
    assert told[0].startswith("Weights & Biases: cannot go online (")
    assert told[1] == f"Weights & Biases: offline in {folder}"
    assert told[-1] == f"wandb sync {folder}"
    assert len(told) == 4
    for secret in (FAKE_KEY, FAKE_KEY[::-1], PASSWORD):
        assert files_with(tmp_path, secret) == []
        assert secret not in out + err


def test_what_a_killed_training_has_logged_is_kept(tmp_path: Path) -> None:
    program = f"""
import os
from sgloc.config import LogConfig
from sgloc.models.sketchgloc.config import Config
from sgloc.train.loggers.wandb import WeightsAndBiases
logger = WeightsAndBiases(Config(log=LogConfig(wandb="offline")), "abcd1234", {str(tmp_path)!r})
for step in range(1, 301):
    logger.log({{"step": step, "event": "train", "loss": step}})
while logger.messages.qsize():
    pass
os.kill(os.getpid(), 9)
"""
    # W&B's process inherits the pipe, so run() returns only after that process has exited.
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL
    (folder,) = offline_runs(tmp_path)
    assert steps(folder, "train/loss") == list(range(1, 301))
    assert [entry.exit.exit_code for entry in read_offline_run(folder) if entry.HasField("exit")] == [1]
    assert killed.stderr.splitlines()[-1] == f"wandb sync {folder}"


def test_when_its_own_process_dies_training_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    inner = WeightsAndBiases(Config(log=LogConfig(wandb="offline")), "abcd1234", str(tmp_path))
    logger = Loggers(inner)
    logger.log(record(1))
    wait_until(lambda: "run started" in "".join(path.read_text() for path in tmp_path.rglob("logs/debug.log")))
    for child in children(inner.process.pid):
        os.kill(child, signal.SIGKILL)
    step = 1

    def log_more() -> bool:
        nonlocal step
        step += 1
        logger.log(record(step))
        return inner.process.poll() is not None and not inner.sender.is_alive()

    wait_until(log_more)
    logger.log(record(step + 1))
    logger.log(record(step + 2))
    logger.close()
    told = [line for line in capfd.readouterr().err.splitlines() if "failed" in line]
    assert told[0].startswith("Weights & Biases: failed (")
    assert told[1].startswith("Weights & Biases failed at step ")
    assert "(its process has ended); training continues" in told[1]
    assert told[2].endswith("times since the run was started or resumed")
    assert len(told) == 3


def test_one_that_hangs_is_left_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sgloc_wandb, "_MOST_WAITING", 100)
    monkeypatch.setattr(sgloc_wandb, "_GRACE", 0)
    inner = WeightsAndBiases(Config(log=LogConfig(wandb="offline", wandb_timeout=1)), "abcd1234", str(tmp_path))
    logger = Loggers(inner)
    os.kill(inner.process.pid, signal.SIGSTOP)
    start = time.monotonic()
    # More records than the queue and the pipe can buffer.
    for step in range(5000):
        logger.log(record(step))
    assert time.monotonic() - start < 10
    logger.close()
    assert time.monotonic() - start < 20
    assert inner.process.poll() is not None
    told = capfd.readouterr().err.splitlines()
    assert "it is 100 records behind; further records are dropped" in told[0]
    assert "it did not finish within 3 s" in told[1]
    assert len(told) == 3


@pytest.fixture(autouse=True)
def _configured() -> None:
    """Configure logging as the command line does."""
    log.configure()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "timed out waiting for the condition"
        time.sleep(0.01)
