"""Checkpoints on a real S3 server, which may become unreachable."""

import contextlib
import dataclasses
import json
import select
import signal
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec.core
import pytest
import torch

from sgloc import load_pretrained
from sgloc.errors import CheckpointError, DamagedCheckpointError
from sgloc.models.sketchgloc.config import Config
from sgloc.storage import Retries
from sgloc.train.checkpoint.load import checkpoint_steps, newest_checkpoint, read_checkpoint
from tests.checkpoints import find_checkpoint
from tests.patience import PATIENCE
from tests.servers import Bucket
from tests.train.launch import kill, losses, start
from tests.train.runs import make_config, records, train
from tests.train.test_checkpoint_saving import Run


def at(url: str, config: Config) -> Config:
    """Return the same configuration with another run folder."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, run=url))


def remote_records(url: str) -> list[dict[str, Any]]:
    file_system, root = fsspec.core.url_to_fs(url)
    lines = map(json.loads, file_system.cat_file(f"{root}/metrics.jsonl").splitlines())
    return [line for line in lines if line["event"] == "train"]


def objects(url: str) -> list[str]:
    """Return the names of all objects under a URL, relative to it."""
    file_system, root = fsspec.core.url_to_fs(url)
    file_system.invalidate_cache()
    return sorted(path.removeprefix(f"{root}/") for path in file_system.find(root))


def test_a_run_lives_in_a_bucket(picture_shards: str, tmp_path: Path, s3: Bucket, logged: list[str]) -> None:
    url, options = f"{s3.url}/runs/one", {"checkpoint_every": 2, "validate_every": 3, "keep_checkpoints": 2}
    train(make_config(picture_shards, tmp_path / "local", num_steps=8, **options), "auto")
    train(at(url, make_config(picture_shards, tmp_path, num_steps=5, **options)), "auto")
    assert checkpoint_steps(url) == [5, 4]
    train(at(url, make_config(picture_shards, tmp_path, num_steps=8, **options)), "auto")
    assert losses(remote_records(url)) == losses(records(tmp_path / "local", "train"))
    steps = checkpoint_steps(url)
    assert steps == checkpoint_steps(str(tmp_path / "local")) == [8, 6]
    names = [name for name in objects(f"{url}/checkpoints") if not name.endswith("/")]
    assert len(names) == 2 * len(steps)
    assert not any(".tmp" in name for name in names)
    best = find_checkpoint(url)
    theirs = load_pretrained(url).model.state_dict()
    ours = load_pretrained(str(tmp_path / "local")).model.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())
    file_system, root = fsspec.core.url_to_fs(best)
    (shard,) = (name for name in file_system.ls(root, detail=False) if name.endswith(".safetensors"))
    file_system.pipe_file(shard, file_system.cat_file(shard)[:-1])
    assert newest_checkpoint(url) != best
    with pytest.raises(DamagedCheckpointError, match=r"safetensors is damaged: \d+ bytes, not \d+"):
        read_checkpoint(best)


def test_a_killed_run_in_a_bucket_keeps_the_lines_up_to_its_checkpoint(
    sample_shards: str, tmp_path: Path, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3.url}/runs/killed"
    monkeypatch.setenv("SGLOC_FAILPOINT", "step:kill:7")
    options = ["--train.run", url, "--train.num_steps", "8"]
    process = start(tmp_path / "run", sample_shards, 1, *options, log=tmp_path / "log")
    try:
        assert process.wait(PATIENCE) == -signal.SIGKILL, (tmp_path / "log").read_text()
    finally:
        kill(process)
    assert [line["step"] for line in remote_records(url)] == [1, 2, 3, 4]


class Line:
    """A TCP proxy to a server; the connection can be cut and restored."""

    def __init__(self, url: str) -> None:
        address = urllib.parse.urlsplit(url)
        self.server = (address.hostname or "", address.port or 0)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.is_cut, self.is_closed = False, False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self.server) as server:
            while not self.is_cut:
                for source in select.select([client, server], [], [], 0.05)[0]:
                    content = source.recv(2**16)
                    if not content:
                        return
                    (server if source is client else client).sendall(content)

    def close(self) -> None:
        self.is_cut = True
        self.listener.close()


@pytest.fixture
def line(s3: Bucket) -> Iterator[Line]:
    """A proxy through which all s3:// access goes."""
    with contextlib.closing(Line(s3.endpoint)) as line:
        s3.go_through(line.url)
        yield line


def test_a_bucket_that_cannot_be_reached_does_not_stop_a_run(
    tiny_shards: str, s3: Bucket, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgloc.storage.folder.SHORT", Retries(num_attempts=2, first_delay=0.01, timeout=5.0))
    url = f"{s3.url}/run"
    with contextlib.closing(Run(url, tiny_shards)) as run:
        run.save(1)
        run.saving.wait()
        line.is_cut = True
        run.save(2)
        run.saving.wait()
        (told,) = run.failures
        assert told.startswith("checkpoint of step 2 could not be written (")
        assert told.endswith("); will retry at the next save; failure 1 of 3")
        # An unreachable server must not count as a damaged checkpoint: the run would fall back to an older one.
        with pytest.raises(CheckpointError, match="check the network and the server, then start again") as caught:
            read_checkpoint(f"{url}/checkpoints/step-00000001")
        assert not isinstance(caught.value, DamagedCheckpointError)
        line.is_cut = False
        run.save(3)
        run.save_at_last()
        assert checkpoint_steps(url) == [3, 1]
        assert [name.split("/")[0] for name in objects(f"{url}/checkpoints")] == ["step-00000001"] * 2 + [
            "step-00000003"
        ] * 2
