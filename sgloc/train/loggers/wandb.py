"""The logger for Weights & Biases, isolated in a process of its own."""

import base64
import contextlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from typing import Any

from sgloc.config import RunConfig
from sgloc.errors import ConfigError
from sgloc.train.loggers.base import Logger, Record, scalars
from sgloc.train.record import recorded_options, versions

# Maximum number of queued records and pictures; a run that logs 100 times a second fills the queue in 100 seconds.
_MOST_WAITING = 10_000
# Seconds allowed beyond a time limit for the process to end or be killed.
_GRACE = 10.0


class WeightsAndBiases(Logger):
    """Logs to a Weights & Biases run, which is continued under the same id when training resumes.

    A separate process (`wandb_process`) talks to W&B, and a thread of this process feeds it, so that an unresponsive
    server or any other fault of W&B can neither stop nor slow down training; and if training is killed, everything
    logged so far is still delivered.

    Args:
        config: configuration of the run.
        run_id: id of the W&B run.
        folder: folder for W&B's files, unless WANDB_DIR is set; None for the current folder.

    Raises:
        ConfigError: if W&B is not installed.
    """

    name = "Weights & Biases"

    def __init__(self, config: RunConfig, run_id: str, folder: str | None) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise ConfigError("log.wandb needs Weights & Biases; run pip install wandb, or unset the option")
        log = config.log
        # Each may take log.wandb_timeout: going online, giving up on that, and uploading the rest at the end.
        self.limit = 3 * log.wandb_timeout + _GRACE
        self.messages: queue.Queue[bytes] = queue.Queue(_MOST_WAITING)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sgloc.train.loggers.wandb_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=_environment(log.wandb),
            # Keep the terminal's signals away from it: it must outlive a stop of the training.
            start_new_session=True,
        )
        self.sender = threading.Thread(target=self._send, name="sgloc-wandb", daemon=True)
        self.sender.start()
        run = {"id": run_id, "project": log.wandb_project, "dir": os.environ.get("WANDB_DIR") or folder}
        names = {"entity": log.wandb_entity, "group": log.wandb_group, "name": log.wandb_name}
        start = {
            "mode": log.wandb,
            "timeout": log.wandb_timeout,
            "run": {**run, **{name: value for name, value in names.items() if value}},
            "config": {**recorded_options(config), "versions": versions()},
        }
        self._put(start)

    def _send(self) -> None:
        pipe = self.process.stdin
        assert pipe is not None
        # If the process has ended, this thread ends too, which the next call of `_put` reports.
        with contextlib.suppress(OSError), pipe:
            while message := self.messages.get():
                pipe.write(message)
                pipe.flush()

    def _put(self, message: dict[str, Any]) -> None:
        if not self.sender.is_alive():
            raise ChildProcessError("its process has ended")
        try:
            self.messages.put_nowait(json.dumps(message).encode() + b"\n")
        except queue.Full as error:
            raise BufferError(f"it is {_MOST_WAITING:,} records behind; further records are dropped") from error

    def log(self, record: Record) -> None:
        """Send the numbers of a record.

        Raises:
            ChildProcessError: if the process has ended.
            BufferError: if the queue is full.
        """
        self._put({"step": record["step"], **scalars(record)})

    def show(self, name: str, step: int, png: bytes) -> None:
        """Send a picture.

        Raises:
            ChildProcessError: if the process has ended.
            BufferError: if the queue is full.
        """
        self._put({"step": step, name: base64.b64encode(png).decode()})

    def close(self) -> None:
        """Wait, up to a time limit, until everything is uploaded or, offline, on disk.

        Raises:
            ChildProcessError: if the process failed.
            TimeoutError: if it took too long.
        """
        try:
            if self.sender.is_alive():
                self.messages.put(json.dumps({"finished": True}).encode() + b"\n", timeout=self.limit)
                self.messages.put(b"", timeout=self.limit)
            code = self.process.wait(self.limit)
        except (queue.Full, subprocess.TimeoutExpired) as error:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"it did not finish within {self.limit:.0f} s") from error
        finally:
            # The thread ends with the process: its write to the pipe then fails.
            self.sender.join(_GRACE)
        if code:
            raise ChildProcessError("its process has failed")


def _environment(mode: str) -> dict[str, str]:
    """Return this process's environment with W&B silenced, its error reporting off, and no API key if offline."""
    environment = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", **os.environ}
    if mode == "offline":
        environment.pop("WANDB_API_KEY", None)
    return environment
