"""Real training runs for the studies: processes under torchrun, one run at a time."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml

from benchmarks.study import require_counts
from sgloc import dist
from sgloc.config import OptimizerConfig, Options, option, require
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.errors import ConfigError, TrainingError
from sgloc.models.sketchgloc.config import Config, DataConfig, DecoderConfig, EncoderConfig, ModelConfig, TrainConfig
from sgloc.sketch.synthetic import write_sample
from sgloc.train.checkpoint.format import read_manifest, step_folder

# "ddp", DistributedDataParallel, stays first: the others are DeepSpeed's.
ENGINES = ("ddp", "zero0", "zero1", "zero2", "zero3")
_DRAWN_IN_CATEGORY = 60
# Every run validates once at its end. Validation is not measured, so it is kept short.
_VALIDATED = 8
# A few megabytes, so that reductions take several buckets.
_BUCKET = 1_000_000


@dataclass(frozen=True)
class RunOptions(Options):
    """Training runs of a study."""

    data: str | None = None
    """Folder or URL of the shards; default: a small synthetic sample."""
    batch: int = option(0, at_least=0)
    """Global batch size; 0: the configuration's."""
    world_sizes: tuple[int, ...] = (1, 2, 4)
    """Numbers of ranks, comma-separated."""
    engines: tuple[str, ...] = ENGINES
    """Training engines, comma-separated."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; 'auto' takes CUDA if it is available."""
    steps: int = option(50, at_least=1)
    """Number of steps to compare."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for engine in self.engines:
            require(engine in ENGINES, "engines", f"among {', '.join(ENGINES)}", repr(engine))
        require_counts("world_sizes", self.world_sizes)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: run folder.
        losses: loss of each step, starting with the run's first step.
    """

    folder: str
    losses: list[float]

    def checkpoint(self, step: int) -> str:
        """Return the folder of a step's checkpoint."""
        return step_folder(self.folder, step)

    def digests(self, step: int) -> dict[str, tuple[int, str]]:
        """Return the size and checksum of each file of a step's checkpoint, keyed by file name."""
        return read_manifest(self.checkpoint(step)).files


def relative_difference(losses: list[float], others: list[float]) -> float:
    """Return the largest difference between two runs' losses, relative to the second run's."""
    return max(abs(loss - other) / abs(other) for loss, other in zip(losses, others, strict=True))


class Launcher:
    """Starts training runs, each in its own run folder.

    Args:
        config: configuration of the runs; a single run may override it.
        shards: folder or URL of the shards.
        device: device of the ranks.
        num_steps: step at which every run ends, including resumed ones.
        save_every: steps between checkpoints.
        folder: parent of the run folders.
    """

    def __init__(
        self, config: Config, shards: str, device: torch.device, num_steps: int, save_every: int, folder: Path
    ) -> None:
        self.folder, self.num_runs = folder, 0
        data = dataclasses.replace(config.data, path=shards, validation_limit=_VALIDATED)
        train = dataclasses.replace(
            config.train,
            num_steps=num_steps,
            checkpoint_every=save_every,
            keep_checkpoints=2,
            validate_every=num_steps,
            log_every=1,
            patience=0,
            device="cuda" if device.type == "cuda" else "cpu",
        )
        log = dataclasses.replace(config.log, wandb="disabled", tensorboard=False, gallery=0)
        options = dataclasses.asdict(dataclasses.replace(config, data=data, train=train, log=log))
        self.config_path = folder / "config.yaml"
        self.config_path.write_text(yaml.safe_dump(options, sort_keys=False))
        for stage, engine in enumerate(ENGINES[1:]):
            sizes = {"reduce_bucket_size": _BUCKET, "allgather_bucket_size": _BUCKET}
            (folder / f"{engine}.json").write_text(json.dumps({"zero_optimization": {"stage": stage, **sizes}}))

    def run(
        self, engine: str, num_ranks: int, accumulation: int = 1, resume: str = "never", options: Sequence[str] = ()
    ) -> Run:
        """Train one run to its end.

        Args:
            engine: one of ENGINES.
            num_ranks: number of processes.
            accumulation: see `TrainConfig`.
            resume: checkpoint to resume from; "never" starts a new run.
            options: further command-line options.

        Raises:
            TrainingError: if the run fails.
        """
        self.num_runs += 1
        folder = self.folder / f"run-{self.num_runs}"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
        command += ["-m", "sgloc", "train", "--config", str(self.config_path), "--train.run", str(folder)]
        command += ["--train.accumulation", str(accumulation), "--resume", resume, *options]
        if engine != ENGINES[0]:
            command += ["--train.deepspeed", str(self.folder / f"{engine}.json")]
        start = time.perf_counter()
        done = subprocess.run(
            command, env={"OMP_NUM_THREADS": "1", **os.environ}, capture_output=True, text=True, check=False
        )
        what = f"{engine} on {num_ranks} rank(s) with {accumulation} micro-batch(es)"
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.startswith("sgloc train:")]
            raise TrainingError(f"the run of {what} failed: {' '.join(said) or done.stderr[-2000:]}")
        print(f"{what}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return Run(str(folder), [record["loss"] for record in records if record["event"] == "train"])


def small_config() -> Config:
    """Return the sizes of configs/quickstart.yaml, with a learning rate at which rounding differences stay small.

    At the quickstart's own learning rate they grow tenfold in four steps. After fifty steps the losses then differ by a
    thousandth, whether the number of ranks differs or only the eighth digit of the learning rate.
    """
    return Config(
        model=ModelConfig(EncoderConfig("lstm", 64), DecoderConfig("layer_norm", 256), latent_size=48),
        data=DataConfig(disturb=0.1),
        optimizer=OptimizerConfig(learning_rate=0.0001),
        train=TrainConfig(global_batch=64),
    )


@contextlib.contextmanager
def launcher(options: RunOptions, config: Config, num_steps: int, save_every: int) -> Iterator[Launcher]:
    """Yield a launcher in a temporary folder, on the shards of the options or else on a small synthetic sample.

    Raises:
        ConfigError: if there are fewer CUDA devices than ranks.
        SglocError: if the shards cannot be used.
    """
    device = dist.select_device(options.device, dist.resolve_placement({}))
    most = max(options.world_sizes)
    if device.type == "cuda" and torch.cuda.device_count() < most:
        raise ConfigError(f"{torch.cuda.device_count()} CUDA devices are too few for {most} ranks; lower --world_sizes")
    if options.batch:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, global_batch=options.batch))
    with tempfile.TemporaryDirectory(prefix="sgloc-bench-") as name:
        folder = Path(name)
        shards = options.data
        if shards is None:
            shards = str(folder / "shards")
            counts = {"num_train": _DRAWN_IN_CATEGORY, "num_valid": 1, "num_test": 0}
            write_sample(str(folder / "npz"), **counts, seed=config.train.seed)
            build_shards(str(folder / "npz"), shards, BuildOptions(licence="MIT; synthetic"))
        yield Launcher(config, shards, device, num_steps, save_every, folder)


def engines_of(options: RunOptions) -> tuple[tuple[str, ...], str | None]:
    """Return the requested engines that are installed, and a sentence about the others, or None if there are none."""
    if importlib.util.find_spec("deepspeed") is not None:
        return options.engines, None
    left_out = [engine for engine in options.engines if engine != ENGINES[0]]
    sentence = f"{', '.join(left_out)} skipped: DeepSpeed is not installed (pip install 'sgloc[deepspeed]')"
    return tuple(engine for engine in options.engines if engine not in left_out), sentence if left_out else None
