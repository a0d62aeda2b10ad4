"""The child process that logs to Weights & Biases for a training process.

It reads JSON lines from standard input: first the description of the run, then numbers and pictures by name. If the
input ends without "finished", training was killed; everything received so far is still logged.
"""

import base64
import contextlib
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

from sgloc.masking import mask
from sgloc.signals import STOP_SIGNALS
from sgloc.train.loggers.base import in_a_few_words

# Seconds beyond W&B's own timeout, after which an alarm ends the process wherever it hangs.
_GRACE = 5


class _User:
    """Messages to the user on the training's standard error; discards all other output of this process."""

    def __init__(self) -> None:
        self.stream: TextIO = os.fdopen(os.dup(2), "w")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)

    def tell(self, sentence: str) -> None:
        with contextlib.suppress(OSError):
            print(f"Weights & Biases: {mask(sentence)}", file=self.stream, flush=True)


def _messages() -> Iterator[dict[str, Any]]:
    for line in sys.stdin.buffer:
        # A kill may truncate the last line.
        if line.endswith(b"\n"):
            yield json.loads(line)


def _start(mode: Literal["online", "offline"], start: dict[str, Any]) -> Any:
    """Start or resume the W&B run in a mode."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        # Arguments, environment, code and git remotes may contain passwords; the logged configuration has all relevant
        # facts.
        x_disable_meta=True,
        x_save_requirements=False,
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        init_timeout=start["timeout"],
        finish_timeout=start["timeout"],
        finish_timeout_raises=True,
    )
    # allow_val_change, since options that are not part of the run's identity may change on resume.
    run = wandb.init(
        mode=mode, resume="allow", allow_val_change=True, config=start["config"], settings=settings, **start["run"]
    )
    # A resumed run restarts from its checkpoint and logs some steps again. W&B's own step must not decrease, so our own
    # step is the x axis, on which repeated points coincide.
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _start_anyhow(start: dict[str, Any], user: _User) -> Any:
    """Start or resume the W&B run, offline if going online fails."""
    if start["mode"] == "online":
        try:
            run = _start("online", start)
            user.tell(str(run.url))
            return run
        except Exception as error:
            user.tell(f"cannot go online ({in_a_few_words(error)}); logging the run offline")
            import wandb

            # Releases the run's id, which cannot be used again before.
            wandb.teardown()
    run = _start("offline", start)
    user.tell(f"offline in {run.settings.sync_dir}")
    return run


def _say_how_to_sync(run: Any, is_complete: bool, user: _User) -> None:
    """Print the command that uploads what this and earlier starts of the run have left on disk."""
    left = set(Path(run.settings.wandb_dir).glob(f"offline-run-*-{run.id}*"))
    # An online run is missing data only if finishing it failed.
    is_online = run.settings.mode != "offline"
    if is_online and not is_complete:
        left.add(Path(run.settings.sync_dir))
    paths = sorted(str(path) for path in left if not list(path.glob("*.synced")))
    if paths:
        option = ["--include-online"] if is_online else []
        user.tell(
            f"to upload it, run on a machine with network access:\n{shlex.join(['wandb', 'sync', *option, *paths])}"
        )


def _log_all(run: Any, messages: Iterator[dict[str, Any]]) -> bool:
    """Log all messages until the input ends; return whether training finished regularly."""
    for message in messages:
        if "finished" in message:
            return True
        run.log({name: _picture(value) if isinstance(value, str) else value for name, value in message.items()})
    return False


def _finish(run: Any, exit_code: int) -> None:
    """Finish the run, and wait for W&B's service, which may write the run's file after `finish` has returned."""
    import wandb

    run.finish(exit_code=exit_code)
    wandb.teardown(exit_code=exit_code)


def _picture(png: str) -> Any:
    """Convert a base64-encoded PNG file to a W&B image."""
    import wandb
    from PIL import Image

    return wandb.Image(Image.open(io.BytesIO(base64.b64decode(png))))


def main() -> int:
    """Log everything that arrives on standard input.

    Returns:
        The exit code: 0 if everything is uploaded or, offline, on disk.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    user, messages = _User(), _messages()
    start = next(messages)
    limit = int(start["timeout"])
    run, is_complete = None, False
    try:
        signal.alarm(2 * limit + _GRACE)
        run = _start_anyhow(start, user)
        signal.alarm(0)
        is_finished = _log_all(run, messages)
        signal.alarm(limit + _GRACE)
        _finish(run, exit_code=0 if is_finished else 1)
        is_complete = True
    except Exception as error:
        user.tell(f"failed ({in_a_few_words(error)}); the complete metrics are in metrics.jsonl")
        signal.alarm(limit + _GRACE)
    if run is not None:
        _say_how_to_sync(run, is_complete, user)
    return 0 if is_complete else 1


if __name__ == "__main__":
    # Skip W&B's exit handlers, which may wait for the network; everything is finished already.
    os._exit(main())
