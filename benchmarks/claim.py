"""The comparison of docs/RESULTS.md: nine graphs against one graph, none, and sequence input, at equal budgets.

    sgloc shard --source ../shared/data/quickdraw-simplified --out shards/claim \\
        --categories "$(cat benchmarks/claim-categories.txt)"
    sgloc train-classifier --config configs/claim-classifier.yaml
    python -m benchmarks.claim
    python -m benchmarks.claim --ablations

Every model is trained and evaluated on real drawings with every seed. `--parallel` runs execute at a time, each with
one process and one thread. A table of all results is printed at the end. Finished work is skipped, so the study can be
stopped at any time and started again.
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sgloc.program import run_program

CONFIG, CLASSIFIER, SHARDS = "configs/claim.yaml", "runs/claim/classifier", "shards/claim"
RUNS = Path("runs/claim")
MODELS: dict[str, tuple[str, ...]] = {
    "grid9": (),
    "grid9-middle": ("--model.graph_relation", "middle"),
    "complete": ("--model.graph", "complete"),
    "temporal": ("--model.graph", "temporal"),
    "nearest": ("--model.graph", "nearest"),
    "none": ("--model.graph", "none"),
    "sketch_rnn": ("--model.kind", "sketch_rnn"),
}
# Ablations of the nine graphs, one change each.
ABLATIONS: dict[str, tuple[str, ...]] = {
    "grid9-mean": ("--model.graph_mean", "true"),
    "grid9-shared": ("--model.graph_weights", "shared"),
    "grid9-no-center": ("--model.graph_center", "false"),
    "grid9-one-layer": ("--model.graph_layers", "1"),
    "grid9-three-layers": ("--model.graph_layers", "3"),
}
SEEDS, ABLATION_SEEDS = (0, 1, 2), (0,)


def run_dir(name: str, seed: int) -> Path:
    """Return the run folder of a model and seed."""
    return RUNS / f"{name}-{seed}"


def sgloc(log: Path, *words: str) -> None:
    """Run a command and append its output to a log file."""
    with log.open("a") as file:
        command = [sys.executable, "-m", "sgloc", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=True)


def train_and_evaluate(name: str, seed: int) -> None:
    """Train and evaluate one model with one seed; finished work is skipped."""
    folder = run_dir(name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    log = RUNS / f"{folder.name}.log"
    words = ("--train.seed", str(seed), "--train.run", str(folder))
    sgloc(log, "train", "--config", CONFIG, *(MODELS | ABLATIONS)[name], *words)
    if not (folder / "evaluated/results.json").exists():
        words = ("--classifier", CLASSIFIER, "--out", str(folder / "evaluated"))
        sgloc(log, "evaluate", "--checkpoint", str(folder), "--data", SHARDS, *words)
    print(f"{folder.name} is done", flush=True)


def measured(name: str, seed: int) -> dict[str, Any]:
    """Return a run's best validation loss, and the metrics of each task in percent."""
    folder = run_dir(name, seed)
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    found: dict[str, Any] = {"loss": min(record["loss"] for record in records if record["event"] == "validation")}
    results = json.loads((folder / "evaluated/results.json").read_text())
    for task in results["tasks"]:
        for prefix in ("", "given_"):
            ret = task[f"{prefix}ret"]
            found[f"{prefix}{task['task']}"] = [
                100 * task[f"{prefix}rec"]["value"],
                *(100 * ret[at]["value"] for at in ("1", "10", "50")),
                task[f"{prefix}distance"]["value"],
            ]
    return found


def spread(values: list[float], digits: int = 1) -> str:
    """Format the mean over the seeds, and the largest deviation from it."""
    mean = statistics.mean(values)
    return f"{mean:.{digits}f} ± {max(abs(value - mean) for value in values):.{digits}f}"


def table(names: Iterable[str], seeds: Sequence[int]) -> str:
    """Format one Markdown table for the losses and one for each task, with a row per model."""
    done = {name: [measured(name, seed) for seed in seeds] for name in names}
    losses = [f"| {name} | {spread([one['loss'] for one in ones], 2)} |" for name, ones in done.items()]
    lines = ["| model | validation loss |", "| --- | ---: |", *losses]
    tasks = [task for task in done["grid9"][0] if task != "loss" and not task.startswith("given_")]
    for task in tasks:
        lines += ["", f"### {task}", "", "| model | Rec | Ret top-1 | Ret top-10 | Ret top-50 | distance |"]
        lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
        for name, ones in done.items():
            lines.append(f"| {name} | {_cells([one[task] for one in ones])} |")
        given = next(iter(done.values()))
        lines.append(f"| left where they are | {_cells([one[f'given_{task}'] for one in given])} |")
    return "\n".join(lines) + "\n"


def _cells(rows: list[list[float]]) -> str:
    """Format the cells of a row: the spread of each metric over the seeds, one row of metrics per seed."""
    return " | ".join(spread(list(column)) for column in zip(*rows, strict=True))


def main(words: Sequence[str]) -> None:
    """Train and evaluate all models, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--ablations", action="store_true", help="also run the ablations of the nine graphs, with one seed only"
    )
    parser.add_argument("--parallel", type=int, default=2, help="number of concurrent runs")
    options = parser.parse_args(words)
    names, seeds = ([*MODELS, *ABLATIONS], ABLATION_SEEDS) if options.ablations else ([*MODELS], SEEDS)
    with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
        jobs = [pool.submit(train_and_evaluate, name, seed) for seed in seeds for name in names]
        for job in concurrent.futures.as_completed(jobs):
            job.result()
    print(f"\n{table(names, seeds)}")


if __name__ == "__main__":
    run_program("benchmarks.claim", main)
