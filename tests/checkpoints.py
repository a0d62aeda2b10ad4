"""Tiny models and checkpoints for tests, and ways to spoil them."""

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

# Of one process.
SHARD = "shard-00000-of-00001.safetensors"
# Of shards that there are none of.
NO_HASH = "0" * 64


@contextlib.contextmanager
def single_process() -> Iterator[Group]:
    """The process group of a plain start."""
    with process_group(resolve_placement({}), torch.device("cpu"), 60.0) as group:
        yield group


def model_config(cell: CellName = "lstm") -> ModelConfig:
    """A model of some thousand weights."""
    encoder, decoder = EncoderConfig("lstm", 4), DecoderConfig(cell, 8, num_mixtures=3)
    return ModelConfig(encoder, decoder, latent_size=5, hyper_size=4, hyper_embedding_size=3)


def make_model(cell: CellName = "lstm", seed: int = 0) -> SketchGloc:
    """An untrained model in evaluation mode, with weights so large that it draws something else for every sketch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SketchGloc(model_config(cell)).eval()
        with torch.no_grad():
            for name, parameter in model.decoder.named_parameters():
                parameter.add_(torch.randn_like(parameter) * (2.0 if name.startswith("output") else 1.5))
            model.decoder.output.bias[:3] = 0
    return model


def make_manifest(shards: Manifest | None = None, **changes: Any) -> CheckpointManifest:
    """A checkpoint's manifest that no file belongs to yet."""
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
    """The configuration as a program wrote it that did not know the options of these dotted names."""
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
    """Write a checkpoint of these tensors, within `single_process`; returns its manifest but for the files."""
    manifest = dataclasses.replace(manifest, tensors=share_out(tensors, 1))
    with contextlib.closing(Group(torch.device("cpu"), 60.0).separate()) as writers:
        Writer(str(run_dir), writers, keep, every).write(manifest, tensors)
    return manifest


def load(folder: Path | str) -> dict[str, Tensor]:
    """All tensors of a checkpoint."""
    return dict(read_tensors(str(folder), read_manifest(str(folder))))


def save_steps(
    run_dir: Path, steps: list[int], *, keep: int = 99, every: int = 0, best_step: int | None = None
) -> dict[str, Tensor]:
    """Save a small checkpoint at each of the steps; returns the tensors that all of them hold."""
    tensors = {"model.weight": torch.arange(6.0).view(2, 3), "model.bias": torch.tensor([0.5, -0.5])}
    for step in steps:
        state = dataclasses.asdict(TrainState(step=step, best_step=best_step))
        write(run_dir, make_manifest(step=step, state=state), tensors, keep=keep, every=every)
    return tensors


def save_model(run_dir: Path, shards: str, model: SketchGloc, **changes: Any) -> Path:
    """Save a model as a run's checkpoint of step 1; returns the checkpoint's folder."""
    config = dataclasses.asdict(Config(model=model.config))
    manifest = make_manifest(load_manifest(shards), **{"config": config, **changes})
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    with single_process():
        write(run_dir, manifest, tensors)
    return step_path(run_dir, manifest.step)


def find_checkpoint(path: str) -> str:
    """The folder of the checkpoint that a path means, verified."""
    return use_checkpoint(path, read_checkpoint)[0]


def step_path(run_dir: Path, step: int) -> Path:
    """Where a step's checkpoint stands."""
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
    """Change the fields of the manifest in a folder and, where it has one, the checksum of itself."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    own = fields.pop("sha256", None)
    change(fields)
    if own is not None:
        fields["sha256"] = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(fields))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Replace a checkpoint's file, and make its manifest tell that file's size and checksum."""
    (folder / name).write_bytes(content)
    digest = [len(content), hashlib.sha256(content).hexdigest()]
    change_manifest(folder, lambda fields: fields["files"].update({name: digest}))
