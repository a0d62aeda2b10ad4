"""DeepSpeed's JSON file: which fields are the user's to choose, and what the others are."""

import difflib
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import fsspec

from sgloc.config import RunConfig
from sgloc.errors import ConfigError

Options = dict[str, Any]

_ZERO = "zero_optimization."
# They say how the work is spread, and not what is computed.
_THEIRS: Mapping[str, type] = MappingProxyType(
    {
        f"{_ZERO}stage": int,
        f"{_ZERO}reduce_bucket_size": int,
        f"{_ZERO}allgather_bucket_size": int,
        f"{_ZERO}sub_group_size": int,
        f"{_ZERO}contiguous_gradients": bool,
        f"{_ZERO}reduce_scatter": bool,
        f"{_ZERO}use_multi_rank_bucket_allreduce": bool,
        f"{_ZERO}overlap_comm": bool,
    }
)
_HIGHEST_STAGE = 3
# How alike two names are of which one may stand for the other by mistake; DeepSpeed has many that are less alike.
_ALIKE = 0.75
_OFF = MappingProxyType({"enabled": False})
# DeepSpeed's default is to overlap at stage 3. Batch norm sums over the ranks too, within the backward pass, and two
# communicators at once are for a user to choose.
_CHOSEN_FOR_THEM = MappingProxyType({"stage": 0, "overlap_comm": False})


def read_options(path: str, config: RunConfig, world_size: int) -> Options:
    """Read the file that train.deepspeed names.

    Args:
        path: local, or a URL.
        config: of the run.
        world_size: the number of processes.

    Returns:
        Fields of zero_optimization, the stage always among them.

    Raises:
        ConfigError: if the file cannot be read, or a field is not the user's to choose, or cannot have its value.
    """
    options = _read_object(path)
    zero = options.pop("zero_optimization", {})
    if not isinstance(zero, dict):
        raise ConfigError(f'zero_optimization in {path} must be an object such as {{"stage": 2}}, not {_text(zero)}')
    ours = _ours(config, world_size)
    chosen = dict(_CHOSEN_FOR_THEM)
    for name, value in (options | {f"{_ZERO}{name}": value for name, value in zero.items()}).items():
        if name in _THEIRS:
            chosen[name.removeprefix(_ZERO)] = _checked(name, value, path)
        elif name not in ours:
            hint = _nearest(name, ["zero_optimization", *_THEIRS, *ours])
            raise ConfigError(f"{name} in {path} is not one of the fields that can be set: {', '.join(_THEIRS)}{hint}")
        elif not _agrees(value, ours[name][0]):
            raise ConfigError(f"{name} = {_text(value)} in {path}, but {ours[name][1]}; remove it there")
    return chosen


def fill_in(chosen: Options, config: RunConfig, world_size: int) -> Options:
    """DeepSpeed's whole configuration.

    Args:
        chosen: what `read_options` gave.
        config: of the run.
        world_size: the number of processes.
    """
    # DeepSpeed wants a batch size that can be divided by the number of ranks, and computes nothing from it: the loss
    # has been divided by the true one, and a step is one pass forward and one back, in however many parts.
    share = _share(config, world_size)
    return {
        "train_batch_size": share * world_size,
        "train_micro_batch_size_per_gpu": share,
        "gradient_accumulation_steps": 1,
        # Variables are clipped by the engine.
        "gradient_clipping": config.optimizer.clip_norm if config.optimizer.clip_by == "whole" else 0.0,
        "zero_allow_untested_optimizer": True,
        # It would wait for the device at every step.
        "timers": {"throughput": {"enabled": False}},
        # The weights are gathered all at once, and none stays behind.
        "zero_optimization": {**chosen, "stage3_param_persistence_threshold": 0},
    }


def _share(config: RunConfig, world_size: int) -> int:
    """The most drawings that a rank has of a batch."""
    return -(-config.train.global_batch // world_size)


def _ours(config: RunConfig, world_size: int) -> dict[str, tuple[object, str]]:
    """What the run's configuration says, by the field that could say otherwise, and in words."""
    train, optimizer = config.train, config.optimizer
    share = -(-_share(config, world_size) // train.accumulation)
    adam = {"lr": optimizer.learning_rate, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0}
    precision = f"train.precision = {train.precision} says in what is computed"
    on_device = "weights and what the optimizer keeps stay on the device"
    return {
        "train_batch_size": (train.global_batch, f"train.global_batch = {train.global_batch}"),
        "train_micro_batch_size_per_gpu": (
            share,
            f"train.global_batch = {train.global_batch} and train.accumulation = {train.accumulation} "
            f"make it {share} on {world_size} ranks",
        ),
        "gradient_accumulation_steps": (train.accumulation, f"train.accumulation = {train.accumulation}"),
        "gradient_clipping": (optimizer.clip_norm, f"optimizer.clip_norm = {optimizer.clip_norm}"),
        "optimizer": (
            {"type": "Adam", "params": adam},
            f"the optimizer is Adam with optimizer.learning_rate = {optimizer.learning_rate}",
        ),
        "scheduler": (None, "the learning rate follows optimizer.learning_rate_decay"),
        **dict.fromkeys(("bf16", "fp16", "amp", "torch_autocast"), (_OFF, precision)),
        "communication_data_type": ("fp32", "gradients are summed in float32"),
        "zero_allow_untested_optimizer": (True, "Adam is the optimizer"),
        "wall_clock_breakdown": (False, "speed is logged every train.log_every steps"),
        **{f"{_ZERO}offload_{what}": ({"device": "none"}, on_device) for what in ("optimizer", "param")},
    }


def _agrees(given: object, ours: object) -> bool:
    """Whether a field says nothing else than the configuration does; "auto" asks for that."""
    if given == "auto" or (given == ours and isinstance(given, bool) == isinstance(ours, bool)):
        return True
    if not isinstance(given, dict):
        return False
    if ours is _OFF:
        return not given.get("enabled", False)
    return isinstance(ours, dict) and all(name in ours and _agrees(value, ours[name]) for name, value in given.items())


def _nearest(name: str, known: Iterable[str]) -> str:
    """The words that ask whether the nearest known field was meant, if any is near; it may have stood elsewhere."""
    fields = {field.removeprefix(_ZERO): field for field in known}
    near = difflib.get_close_matches(name.removeprefix(_ZERO), fields, n=1, cutoff=_ALIKE)
    return f"; did you mean {fields[near[0]]!r}?" if near else ""


def _checked(name: str, value: object, path: str) -> bool | int:
    """A value that its field can have."""
    if _THEIRS[name] is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{name} in {path} must be true or false, not {_text(value)}")
        return value
    # DeepSpeed's own examples write sizes such as 5e8.
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        raise ConfigError(f"{name} in {path} must be a whole number, not {_text(value)}")
    number = int(value)
    if name == f"{_ZERO}stage":
        if not 0 <= number <= _HIGHEST_STAGE:
            raise ConfigError(f"{name} in {path} must be 0, 1, 2 or 3, not {number}")
    elif number < 1:
        raise ConfigError(f"{name} in {path} must be at least 1, not {number}")
    elif name == f"{_ZERO}allgather_bucket_size" and number % 2:
        raise ConfigError(f"{name} in {path} must be even, not {number}")
    return number


def _read_object(path: str) -> Options:
    """The object that a JSON file holds."""
    try:
        with fsspec.open(path, "rt", encoding="utf-8") as file:
            options = json.load(file)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} (train.deepspeed) is not JSON ({error}); see configs/deepspeed") from error
    # What fsspec's file systems raise where a file, a host or the right to read is missing.
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"cannot read {path} ({error}); train.deepspeed must name a JSON file") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{path} (train.deepspeed) must hold an object, not {_text(options)}; see configs/deepspeed")
    return options


def _text(value: object) -> str:
    return json.dumps(value)
