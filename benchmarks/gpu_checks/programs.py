"""Checks of whole programs: resuming, several ranks, the commands, DeepSpeed."""

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from benchmarks.gpu_checks import CheckError, Facts, NotRunError, Setting, require
from benchmarks.gpu_checks.models import are_close, opened, small_model, take_steps, training_config
from sgloc import dist
from sgloc.cli import main
from sgloc.config import LogConfig
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.models.sketchgloc.config import Config, DataConfig, TrainConfig
from sgloc.models.sketchgloc.recipe import SketchGlocRecipe
from sgloc.sketch.synthetic import write_sample
from sgloc.train.checkpoint.format import step_folder
from sgloc.train.trainer import train

_DEEPSPEED = Path(__file__).parents[2] / "configs" / "deepspeed"
_STAGES = range(4)
_RANK_SECONDS = 100
# Exit code requested from compute-sanitizer if it finds an error.
_SANITIZER_CODE = 7


def _shards(setting: Setting) -> str:
    """Return the folder of a synthetic sample's shards; the first check that needs them builds them."""
    folder = setting.folder / "shards"
    if not (folder / "manifest.json").exists():
        num_train = 12 if setting.is_tiny else 200
        files = write_sample(str(setting.folder / "sample"), num_train=num_train, num_valid=8, num_test=12, seed=0)
        build_shards(files, str(folder), BuildOptions(sketches_per_shard=256))
    return str(folder)


def _config(setting: Setting, run: str, num_steps: int) -> Config:
    """Return the configuration of a short run."""
    options = TrainConfig(
        run=str(setting.folder / "runs" / run),
        num_steps=num_steps,
        global_batch=8 if setting.is_tiny else 32,
        log_every=1,
        validate_every=2 if setting.is_tiny else 10,
        checkpoint_every=2 if setting.is_tiny else 5,
        keep_checkpoints=9,
        device="cuda" if setting.is_cuda else "cpu",
    )
    data = DataConfig(path=_shards(setting), disturb=0.1, validation_limit=16)
    return Config(
        model=small_model(size=16 if setting.is_tiny else 64), data=data, train=options, log=LogConfig(gallery=2)
    )


def _losses(config: Config) -> list[float]:
    """Return the loss of each step of a run."""
    lines = map(json.loads, Path(config.train.run, "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["event"] == "train"]


def collectives(setting: Setting) -> Facts:
    """Check the collectives that sgloc uses, in a process group of one rank; NCCL on CUDA."""
    with dist.process_group(dist.resolve_placement({}), setting.device) as group:
        require(group.sum([1.5, 2.0]) == [1.5, 2.0], "a sum over one rank changes the value")
        require(group.max(3.0) == 3.0, "a maximum over one rank changes the value")
        require(group.on_rank_0(lambda: "x") == "x", "on_rank_0 returns a wrong value")
        require(group.gather({"a": 1}) == [{"a": 1}], "gather returns a wrong value")
        writers = group.separate()
        require(writers.gather(1) == [1], "gather in a group on host memory returns a wrong value")
        writers.close()
        return {"backend": torch.distributed.get_backend()}


def resume(setting: Setting) -> Facts:
    """Check that a run resumed halfway ends bit-identical to an uninterrupted one."""
    num_steps = 4 if setting.is_tiny else 20
    whole, halves = _config(setting, "whole", num_steps), _config(setting, "halves", num_steps)
    train(whole, "never", SketchGlocRecipe())
    train(_config(setting, "halves", num_steps // 2), "never", SketchGlocRecipe())
    train(halves, "auto", SketchGlocRecipe())

    def tensors(config: Config) -> dict[str, Tensor]:
        files = Path(step_folder(config.train.run, num_steps)).glob("*.safetensors")
        return {name: tensor for file in files for name, tensor in safetensors.torch.load_file(file).items()}

    ours, theirs = tensors(whole), tensors(halves)
    differing = sorted(name for name in ours if not torch.equal(ours[name], theirs[name]))
    require(ours.keys() == theirs.keys(), "the two checkpoints contain different tensors")
    require(not differing, f"{len(differing)} of {len(ours)} tensors differ, for example {', '.join(differing[:3])}")
    return {"tensors": len(ours), "losses": _losses(whole)[-2:]}


def ranks(setting: Setting) -> Facts:
    """Check that two ranks take the same steps as one: by NCCL on two GPUs, or by gloo sharing a single GPU."""
    num_steps = 2 if setting.is_tiny else 6
    alone, together = _config(setting, "alone", num_steps), _config(setting, "together", num_steps)
    train(alone, "never", SketchGlocRecipe())
    shared = setting.is_cuda and torch.cuda.device_count() < 2
    # As under torchrun, the parent hosts the store, so that no other process can take the port before the ranks do.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    environment = {**os.environ, **meeting, "WORLD_SIZE": "2"}
    path = setting.folder / "together.json"
    path.write_text(json.dumps(dataclasses.asdict(together)))
    command = [sys.executable, "-m", "benchmarks.gpu_checks.rank", str(path), *(["--shared"] if shared else [])]
    processes = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=_RANK_SECONDS)[0] for process in processes]
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"the ranks took more than {_RANK_SECONDS} s") from error
    finally:
        for process in processes:
            process.kill()
    print("\n".join(said))
    failed = [text for process, text in zip(processes, said, strict=True) if process.returncode]
    require(not failed, f"a rank failed: {(failed or [''])[0].strip()[-300:]}")
    found, right = _losses(together), _losses(alone)
    require(are_close(found, right, 1e-3), f"the losses are {found}, but on one rank {right}")
    return {"backend": "gloo on one GPU" if shared else dist.backend(setting.device), "losses": found}


def commands(setting: Setting) -> Facts:
    """Train, then train a classifier, generate, and evaluate from the command line."""
    config, device = _config(setting, "commands", 2 if setting.is_tiny else 20), setting.device.type
    train(config, "never", SketchGlocRecipe())
    run, data, runs = config.train.run, config.data.path, setting.folder / "runs"
    judge, num_steps, count = runs / "classifier", *(("2", "6") if setting.is_tiny else ("20", "64"))
    training = {"data": data, "train.run": judge, "train.num_steps": num_steps, "train.device": device}
    training |= {"model.width": 2 if setting.is_tiny else 8, "train.global_batch": 8, "train.validate_every": 20}
    drawing = {"checkpoint": run, "data": data, "device": device, "max_points": 40, "count": count}
    moving = {"out": runs / "drawn", "disturb": 0.1, "temperature": 0.3}
    judging = {"out": runs / "evaluated", "classifier": judge, "batch_size": 32}
    every = (("train-classifier", training), ("generate", drawing | moving), ("evaluate", drawing | judging))
    words = [[name, *(f"--{option}={value}" for option, value in options.items())] for name, options in every]
    for command in words:
        try:
            main(command)
        except SystemExit as ended:
            require(not ended.code, f"sgloc {command[0]} exits with code {ended.code}")
    results = json.loads((runs / "evaluated" / "results.json").read_text())
    return {"commands": [command[0] for command in words], "evaluated sketches": results["data"]["sketches"]}


def deepspeed(setting: Setting) -> Facts:
    """Check that ZeRO stages 0 to 3 take the same steps as DistributedDataParallel."""
    if importlib.util.find_spec("deepspeed") is None:
        raise NotRunError("DeepSpeed is not installed; pip install 'sgloc[deepspeed]'")
    size = 4 if setting.is_tiny else 16
    with opened(setting, training_config(setting, size)) as (engine, batch):
        right = take_steps(engine, batch, 3)
    found: Facts = {"ddp": right}
    for stage in _STAGES:
        config = training_config(setting, size, deepspeed=str(_DEEPSPEED / f"zero{stage}.json"))
        with opened(setting, config) as (engine, batch):
            found[f"zero{stage}"] = take_steps(engine, batch, 3)
        require(are_close(found[f"zero{stage}"], right, 1e-3), f"stage {stage}: {found[f'zero{stage}']}, not {right}")
    return found


def sanitizer(setting: Setting) -> Facts:
    """Check that the Triton kernels access no memory outside their own buffers."""
    setting.need_cuda()
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise NotRunError("compute-sanitizer is not installed; it comes with the CUDA toolkit")
    run = subprocess.run(
        [program, "--error-exitcode", str(_SANITIZER_CODE), sys.executable, "-m", "benchmarks.gpu_checks", "kernels",
         str(setting.folder)],
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(run.stdout, run.stderr)
    require(run.returncode == 0, f"compute-sanitizer exits with code {run.returncode}: {run.stdout.strip()[-200:]}")
    return {"said": run.stdout.strip().splitlines()[-1:]}
