"""Weights & Biases, at arm's length."""

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

# Records and pictures that wait for W&B; a run that logs a hundred times a second fills it in one and a half minutes.
_MOST_WAITING = 10_000
# Of killing a process.
_GRACE = 10.0


class WeightsAndBiases(Logger):
    """A Weights & Biases run, taken up again under the same id when the training is resumed.

    A process of its own (`wandb_process`) talks to W&B, and a thread of this one to that process, so that neither a
    server that does not answer nor anything else there can stop, slow or end the training; and when the training is
    killed, what was logged until then is not lost.

    Args:
        config: of the run.
        run_id: W&B's.
        folder: in which W&B keeps its files, unless WANDB_DIR names another; None: the current one.

    Raises:
        ConfigError: if W&B is not installed.
    """

    name = "Weights & Biases"

    def __init__(self, config: RunConfig, run_id: str, folder: str | None) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise ConfigError("log.wandb needs Weights & Biases; pip install wandb, or leave the option out")
        log = config.log
        # What may take log.wandb_timeout: logging in online, giving that up, and at the end uploading the rest.
        self.limit = 3 * log.wandb_timeout + _GRACE
        self.messages: queue.Queue[bytes] = queue.Queue(_MOST_WAITING)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sgloc.train.loggers.wandb_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=_environment(log.wandb),
            # Signals that stop the training are none of its business.
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
        # When the process has ended, whoever calls next finds out.
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
            raise BufferError(f"it is {_MOST_WAITING:,} records behind and drops what follows") from error

    def log(self, record: Record) -> None:
        """Send a record's numbers.

        Raises:
            ChildProcessError: if there is nobody to send them to.
            BufferError: if too many wait.
        """
        self._put({"step": record["step"], **scalars(record)})

    def show(self, name: str, step: int, png: bytes) -> None:
        """Send a picture; raises what `log` does."""
        self._put({"step": step, name: base64.b64encode(png).decode()})

    def close(self) -> None:
        """Wait, within bounds, until everything is uploaded or on disk.

        Raises:
            ChildProcessError: if that has failed.
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
            raise TimeoutError(f"it was not done after {self.limit:.0f} s") from error
        finally:
            # Ends when the process has, whatever it was writing.
            self.sender.join(_GRACE)
        if code:
            raise ChildProcessError("its process has failed")


def _environment(mode: str) -> dict[str, str]:
    """This process's environment: quiet, without W&B's reports on itself, and without a key where none is needed."""
    environment = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", **os.environ}
    if mode == "offline":
        environment.pop("WANDB_API_KEY", None)
    return environment
