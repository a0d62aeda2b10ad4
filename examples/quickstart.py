"""The whole workflow on the built-in synthetic sample: `make quickstart`.

The script writes the sample, packs it into shards, and trains in two processes. Once a checkpoint exists it kills them
all with SIGKILL and runs the same command again. The trained model then redraws disturbed test drawings and is
evaluated: Rec by a classifier trained here, Ret, and the distance of the strokes from their right places.
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
    """Print a sgloc command as a user would type it, and run it; exit with its code if it fails."""
    launcher = ["torchrun", "--standalone", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    print(f"\n$ {' '.join([*launcher, 'sgloc', *words])}", flush=True)
    module = ["torch.distributed.run", *launcher[1:]] if launcher else []
    environment = {"OMP_NUM_THREADS": "1", **os.environ} if launcher else None
    done = subprocess.run([sys.executable, "-m", *module, "sgloc", *words], env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def train(*, kill_when_saved: bool) -> None:
    """Train in two processes; with `kill_when_saved`, kill both shortly after the first checkpoint."""
    print(f"\n$ python {' '.join(TRAIN)}", flush=True)
    process = subprocess.Popen([sys.executable, *TRAIN], start_new_session=True)
    try:
        while kill_when_saved and process.poll() is None and not any(RUN.glob("checkpoints/step-*/manifest.json")):
            time.sleep(0.2)
        if kill_when_saved and process.poll() is None:
            # Let the run take a few more steps, which are lost and repeated.
            time.sleep(3)
            os.killpg(process.pid, signal.SIGKILL)
            KILLED_MARK.touch()
            print("\n*** killed all processes with SIGKILL; running the same command again ***", flush=True)
            process.wait()
        elif code := process.wait():
            sys.exit(code)
    finally:
        # Leave no process behind, however this function ends.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def validation_losses() -> list[float]:
    """Return the validation losses of the run, in order."""
    records = (json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["event"] == "validation"]


def main(_: Sequence[str]) -> None:
    """Run the whole workflow, skipping what is already done."""
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
        f"  validation   loss fell from {losses[0]:.1f} to {min(losses):.1f} nats per drawing\n"
        f"  gallery      {GALLERY}/gallery.png: original, disturbed, put back, redrawn by the model\n"
        f"  evaluation   {EVALUATED}/results.md: Rec, Ret and distances, the table above and by category\n"
        f"  drawings     {GALLERY}/redrawn.ndjson, {GALLERY}/svg/\n"
        f"  checkpoints  {RUN}/checkpoints/\n"
        f"  metrics      {RUN}/metrics.jsonl\n"
        f"  shards       {SHARDS}/manifest.json"
    )


if __name__ == "__main__":
    run_program("quickstart", main)
