"""The main job on the built-in synthetic sample, in one go: `make quickstart`.

It draws the sample, packs it into shards, trains in two processes, kills them all with SIGKILL once a checkpoint is
there, starts the same command again, has the model redraw disturbed drawings that it has never seen, and measures it:
Rec by a classifier that it trains for that, Ret, and how far strokes are from their places.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sgloc.program import run_program

CONFIG = "configs/quickstart.yaml"
CLASSIFIER_CONFIG = "configs/quickstart-classifier.yaml"
SAMPLE = Path("shards/sample-npz")
SHARDS = Path("shards/sample")
RUN = Path("runs/quickstart")
GALLERY = RUN / "drawn"
CLASSIFIER = Path("runs/quickstart-classifier")
EVALUATED = RUN / "evaluated"
TRAIN = ("-m", "launch.local", "--processes", "2", "train", "--config", CONFIG)
DRAWINGS_PER_CATEGORY = {"train": 600, "valid": 40, "test": 40}
LICENCE = "MIT; synthetic drawings made by this program, not QuickDraw's"
KILLED_MARK = RUN / "killed-once"


def sgloc(*words: str, processes: int = 1) -> None:
    """Run a command of sgloc, shown as a user would type it; one that fails has told why."""
    launcher = ["torchrun", "--standalone", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    print(f"\n$ {' '.join([*launcher, 'sgloc', *words])}", flush=True)
    module = ["torch.distributed.run", *launcher[1:]] if launcher else []
    environment = {"OMP_NUM_THREADS": "1", **os.environ} if launcher else None
    done = subprocess.run([sys.executable, "-m", *module, "sgloc", *words], env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def train(*, kill_when_saved: bool) -> None:
    """Train in two processes; if asked, kill them all as soon as a checkpoint is there."""
    print(f"\n$ python {' '.join(TRAIN)}", flush=True)
    process = subprocess.Popen([sys.executable, *TRAIN], start_new_session=True)
    try:
        while kill_when_saved and process.poll() is None and not any(RUN.glob("checkpoints/step-*/manifest.json")):
            time.sleep(0.2)
        if kill_when_saved and process.poll() is None:
            # A few steps more, which are lost and done again.
            time.sleep(3)
            os.killpg(process.pid, signal.SIGKILL)
            KILLED_MARK.touch()
            print("\n*** killed all processes with SIGKILL; now the same command again ***", flush=True)
            process.wait()
        elif code := process.wait():
            sys.exit(code)
    finally:
        # Nothing is left behind, whatever ended this.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def validation_losses() -> list[float]:
    """Validation losses of the run, in order."""
    records = (json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["event"] == "validation"]


def main(_: Sequence[str]) -> None:
    """Do it all; what is already done is not done again."""
    start = time.monotonic()
    if not (SHARDS / "manifest.json").exists():
        counts = [word for split, count in DRAWINGS_PER_CATEGORY.items() for word in (f"--{split}", str(count))]
        sgloc("sample", "--out", str(SAMPLE), *counts)
        sgloc("shard", "--source", str(SAMPLE), "--out", str(SHARDS), "--licence", LICENCE)
    if not KILLED_MARK.exists():
        train(kill_when_saved=True)
    train(kill_when_saved=False)
    words = ("--checkpoint", str(RUN), "--data", str(SHARDS), "--disturb", "0.1", "--out", str(GALLERY))
    sgloc("generate", *words)
    sgloc("train-classifier", "--config", CLASSIFIER_CONFIG, processes=2)
    words = ("--checkpoint", str(RUN), "--data", str(SHARDS), "--classifier", str(CLASSIFIER), "--out", str(EVALUATED))
    sgloc("evaluate", *words, processes=2)
    losses = validation_losses()
    minutes = (time.monotonic() - start) / 60
    print(
        f"\ndone in {minutes:.1f} minutes\n"
        f"  validation   loss fell from {losses[0]:.1f} to {min(losses):.1f} nats a drawing\n"
        f"  gallery      {GALLERY}/gallery.png: original, disturbed, put back, redrawn by the model\n"
        f"  measured     {EVALUATED}/results.md: Rec, Ret and distances, the table above and by category\n"
        f"  drawings     {GALLERY}/redrawn.ndjson, {GALLERY}/svg/\n"
        f"  checkpoints  {RUN}/checkpoints/\n"
        f"  metrics      {RUN}/metrics.jsonl\n"
        f"  shards       {SHARDS}/manifest.json"
    )


if __name__ == "__main__":
    run_program("quickstart", main)
