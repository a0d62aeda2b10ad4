"""Where a run starts: from its own checkpoint, or from the weights of a trained model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sgloc.config import RunConfig
from sgloc.data.manifest import Manifest
from sgloc.errors import CheckpointError, ConfigError
from sgloc.storage import Storage
from sgloc.train.checkpoint import CheckpointManifest, first_whole, read_manifest, read_tensors, use_checkpoint
from sgloc.train.recorded import recorded_place
from sgloc.train.resume import checkpoints_to_resume, refuse_other_run

_PREFIX = "model."
_EXPORTED = "model.safetensors"
# Tensors that a message names.
_MOST_NAMED = 3


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        init_from: whose weights it started from at its very first start; empty: nobody's.
        weights: those, by name in the model, where this is that start.
    """

    init_from: str
    weights: dict[str, Tensor] | None = None


def find_start(config: RunConfig, resume: str, data: Manifest, model: nn.Module, say: Callable[[str], None]) -> Start:
    """See whether a run may start, before anything of it is written. On rank 0 only.

    Args:
        config: of the run.
        resume: see `checkpoints_to_resume`.
        data: manifest of its shards.
        model: of the run.
        say: is told of checkpoints that are skipped.

    Raises:
        ConfigError: if both `resume` and `train.init_from` name a checkpoint.
        CheckpointError: if either cannot be used for this run.
    """
    init_from = config.train.init_from
    if init_from and resume not in ("auto", "never"):
        raise ConfigError("--init_from starts a new run from weights, --resume goes on with a run; give one of them")
    folders = checkpoints_to_resume(config.train.run, resume, say)
    # That of any of a run's checkpoints says what run it is.
    found = first_whole(folders, read_manifest, lambda _: None)
    if found is not None:
        refuse_other_run(*found, config, data)
        return Start(_first_start(found[1], config, is_own=resume in ("auto", "never")))
    if folders or not init_from:
        return Start(init_from)
    return Start(init_from, read_weights(init_from, model, say))


def _first_start(manifest: CheckpointManifest, config: RunConfig, *, is_own: bool) -> str:
    """What a run that goes on was started from.

    Raises:
        CheckpointError: if that is not what this start asks for.
    """
    theirs, ours = str(manifest.config.get("train", {}).get("init_from", "")), config.train.init_from
    if is_own and ours and recorded_place(ours) != theirs:
        raise CheckpointError(
            f"{config.train.run} was started {f'from {theirs}' if theirs else 'anew'}, not from {ours}; leave "
            "--init_from out to go on with it, or give another --train.run"
        )
    return theirs


def read_weights(path: str, model: nn.Module, say: Callable[[str], None]) -> dict[str, Tensor]:
    """The weights and buffers of a trained model, which fit another one.

    Args:
        path: folder or URL of a checkpoint; of a run, of which the best checkpoint is taken; or of an exported model.
        model: that they have to fit.
        say: is told of checkpoints that are skipped.

    Raises:
        CheckpointError: if there is no whole model there, or it does not fit; it names the tensors.
    """
    is_export = Storage(path).exists(_EXPORTED)
    weights = _read_export(path) if is_export else use_checkpoint(path, _read_checkpoint, say)[1]
    _refuse_other_shapes(path, weights, model.state_dict())
    return weights


def _read_checkpoint(folder: str) -> dict[str, Tensor]:
    tensors = read_tensors(folder, read_manifest(folder))
    return {name.removeprefix(_PREFIX): tensor for name, tensor in tensors if name.startswith(_PREFIX)}


def _read_export(folder: str) -> dict[str, Tensor]:
    storage = Storage(folder)
    with storage.reading(_EXPORTED):
        content = storage.content(_EXPORTED)
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}/{_EXPORTED} is damaged ({error}); export the model again") from error


def _refuse_other_shapes(path: str, weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    wrong = []
    for name in sorted(weights.keys() | wanted.keys()):
        theirs, ours = (_form(found[name]) if name in found else "" for found in (weights, wanted))
        if theirs != ours:
            wrong.append(f"{name} is {theirs or 'missing'} there and {ours or 'missing'} here")
    if wrong:
        more = f"; and {len(wrong) - _MOST_NAMED} tensors more" if len(wrong) > _MOST_NAMED else ""
        raise CheckpointError(
            f"the weights of {path} do not fit this model: {'; '.join(wrong[:_MOST_NAMED])}{more}; give the options "
            "of the model that they were trained with"
        )


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
