"""The process that talks to Weights & Biases for a training.

It reads lines of JSON from standard input: what run it is, then what there is to log, numbers and pictures by their
names. When the input ends without "finished", the training was killed; what came until then is kept all the same.
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

# Beyond the time that W&B is given, after which the process ends whatever it hangs in.
_GRACE = 5


class _User:
    """Whoever reads the training's standard error. What others in this process print there goes nowhere."""

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
        # A kill may cut the last one short.
        if line.endswith(b"\n"):
            yield json.loads(line)


def _start(mode: Literal["online", "offline"], start: dict[str, Any]) -> Any:
    """W&B's run, in a mode."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        # Arguments, environment, code and git remotes may hold passwords. What is worth knowing of them is in the
        # configuration.
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
    # A resumed run may have other options of the kind that does not make it another run.
    run = wandb.init(
        mode=mode, resume="allow", allow_val_change=True, config=start["config"], settings=settings, **start["run"]
    )
    # A run that is resumed goes back to its checkpoint and logs some steps again. W&B's own step must never go back;
    # with ours as the axis those points just lie on top of each other.
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _start_anyhow(start: dict[str, Any], user: _User) -> Any:
    """W&B's run, offline where it cannot be online."""
    if start["mode"] == "online":
        try:
            run = _start("online", start)
            user.tell(str(run.url))
            return run
        except Exception as error:
            user.tell(f"not online ({in_a_few_words(error)}); the run is logged offline")
            import wandb

            # The id is in use until then.
            wandb.teardown()
    run = _start("offline", start)
    user.tell(f"offline in {run.settings.sync_dir}")
    return run


def _say_how_to_sync(run: Any, is_complete: bool, user: _User) -> None:
    """Tell which command uploads what this and earlier starts of the run have left on disk."""
    left = set(Path(run.settings.wandb_dir).glob(f"offline-run-*-{run.id}*"))
    # What is online lacks something only if its end did not get through.
    is_online = run.settings.mode != "offline"
    if is_online and not is_complete:
        left.add(Path(run.settings.sync_dir))
    paths = sorted(str(path) for path in left if not list(path.glob("*.synced")))
    if paths:
        option = ["--include-online"] if is_online else []
        user.tell(f"where there is a network, upload it by\n{shlex.join(['wandb', 'sync', *option, *paths])}")


def _log_all(run: Any, messages: Iterator[dict[str, Any]]) -> bool:
    """Log what comes, and say whether the training has told its end."""
    for message in messages:
        if "finished" in message:
            return True
        run.log({name: _picture(value) if isinstance(value, str) else value for name, value in message.items()})
    return False


def _picture(png: str) -> Any:
    """A picture for W&B, from a PNG file in base 64."""
    import wandb
    from PIL import Image

    return wandb.Image(Image.open(io.BytesIO(base64.b64decode(png))))


def main() -> int:
    """Log until there is nothing more.

    Returns:
        The exit code: 0 if all is uploaded, or on disk when offline.
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
        run.finish(exit_code=0 if is_finished else 1)
        is_complete = True
    except Exception as error:
        user.tell(f"failed ({in_a_few_words(error)}); what it lacks of the run is in metrics.jsonl")
        signal.alarm(limit + _GRACE)
    if run is not None:
        _say_how_to_sync(run, is_complete, user)
    return 0 if is_complete else 1


if __name__ == "__main__":
    # All is said and done, and what W&B would do at exit may wait for a network.
    os._exit(main())
