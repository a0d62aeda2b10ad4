"""Tiny models and checkpoints for tests, and helpers that damage them."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgloc.data.manifest import Manifest, load_manifest
from sgloc.dist import Group, process_group, resolve_placement
from sgloc.models.sketch_a_net.config import ClassifierConfig
from sgloc.models.sketchgloc.config import CellName, Config, DecoderConfig, EncoderConfig, ModelConfig
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.strict_json import finite
from sgloc.train.checkpoint.format import CheckpointManifest, read_manifest
from sgloc.train.checkpoint.load import read_checkpoint, read_tensors, use_checkpoint
from sgloc.train.checkpoint.writer import Writer, share_out
from sgloc.train.state import TrainState

# The file name that a single process writes.
SHARD = "shard-00000-of-00001.safetensors"
# The data identity of a checkpoint without shards.
NO_HASH = "0" * 64


@contextlib.contextmanager
def single_process() -> Iterator[Group]:
    """Yield the process group of a process started without a launcher."""
    with process_group(resolve_placement({}), torch.device("cpu"), 60.0) as group:
        yield group


def model_config(cell: CellName = "lstm") -> ModelConfig:
    """Return the configuration of a model with a few thousand weights."""
    encoder, decoder = EncoderConfig("lstm", 4), DecoderConfig(cell, 8, num_mixtures=3)
    return ModelConfig(encoder, decoder, latent_size=5, hyper_size=4, hyper_embedding_size=3)


def make_model(cell: CellName = "lstm", seed: int = 0) -> SketchGloc:
    """Return an untrained model in evaluation mode, its weights so large that sketches are redrawn differently."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SketchGloc(model_config(cell)).eval()
        with torch.no_grad():
            for name, parameter in model.decoder.named_parameters():
                parameter.add_(torch.randn_like(parameter) * (2.0 if name.startswith("output") else 1.5))
            model.decoder.output.bias[:3] = 0
    return model


def make_manifest(shards: Manifest | None = None, **changes: Any) -> CheckpointManifest:
    """Return a checkpoint manifest that lists no files yet."""
    fields = {
        "step": 1,
        "saved_at": "2026-01-02T03:04:05+00:00",
        "engine": "DDP",
        "world_size": 1,
        "global_batch": 4,
        "config": dataclasses.asdict(Config(model=model_config())),
        "data_identity": shards.identity if shards else NO_HASH,
        "licence": shards.licence if shards else "",
        "num_categories": len(shards.categories) if shards else 2,
        "num_drawings": shards.splits["train"].num_sketches if shards else 24,
        "scale": shards.scale if shards else 20.0,
        "longest_points": shards.longest_points if shards else 9,
        "state": finite(dataclasses.asdict(TrainState())),
        "versions": {"sgloc": "0"},
        "tensors": {},
        "files": {},
    }
    return CheckpointManifest(**{**fields, **changes})


def without(config: Config | ClassifierConfig, *names: str) -> dict[str, Any]:
    """Return the configuration as written by a version that did not have the options with these dotted names."""
    options = dataclasses.asdict(config)
    for name in names:
        *sections, last = name.split(".")
        section = options
        for each in sections:
            section = section[each]
        del section[last]
    return options


def write(
    run_dir: Path | str, manifest: CheckpointManifest, tensors: dict[str, Tensor], *, keep: int = 99, every: int = 0
) -> CheckpointManifest:
    """Write a checkpoint of these tensors, inside `single_process`; return its manifest without the files."""
    manifest = dataclasses.replace(manifest, tensors=share_out(tensors, 1))
    with contextlib.closing(Group(torch.device("cpu"), 60.0).separate()) as writers:
        Writer(str(run_dir), writers, keep, every).write(manifest, tensors)
    return manifest


def load(folder: Path | str) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint."""
    return dict(read_tensors(str(folder), read_manifest(str(folder))))


def save_steps(
    run_dir: Path, steps: list[int], *, keep: int = 99, every: int = 0, best_step: int | None = None
) -> dict[str, Tensor]:
    """Save a small checkpoint at each of the steps; return the tensors that all of them contain."""
    tensors = {"model.weight": torch.arange(6.0).view(2, 3), "model.bias": torch.tensor([0.5, -0.5])}
    for step in steps:
        state = dataclasses.asdict(TrainState(step=step, best_step=best_step))
        write(run_dir, make_manifest(step=step, state=state), tensors, keep=keep, every=every)
    return tensors


def save_model(run_dir: Path, shards: str, model: SketchGloc, **changes: Any) -> Path:
    """Save a model as the checkpoint of step 1 of a run; return the checkpoint's folder."""
    config = dataclasses.asdict(Config(model=model.config))
    manifest = make_manifest(load_manifest(shards), **{"config": config, **changes})
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    with single_process():
        write(run_dir, manifest, tensors)
    return step_path(run_dir, manifest.step)


def find_checkpoint(path: str) -> str:
    """Return the folder of the checkpoint that `path` resolves to, verified."""
    return use_checkpoint(path, read_checkpoint)[0]


def step_path(run_dir: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def flip_bit(path: Path, bit: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply `change` to the fields of the manifest in a folder and update its own checksum, if it has one."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    own = fields.pop("sha256", None)
    change(fields)
    if own is not None:
        fields["sha256"] = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(fields))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a checkpoint and record the new size and checksum in its manifest."""
    (folder / name).write_bytes(content)
    digest = [len(content), hashlib.sha256(content).hexdigest()]
    change_manifest(folder, lambda fields: fields["files"].update({name: digest}))
