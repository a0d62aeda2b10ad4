"""DeepSpeed's JSON file: the fields that a user may set, and the values of all others."""

import difflib
import json
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from sgloc.config import RunConfig, require
from sgloc.errors import ConfigError
from sgloc.storage import open_file

Options = dict[str, Any]

_ZERO = "zero_optimization."
# Users may set how the work is distributed, but not what is computed.
_SIZES = ("reduce_bucket_size", "allgather_bucket_size", "sub_group_size")
_SWITCHES = ("contiguous_gradients", "reduce_scatter", "use_multi_rank_bucket_allreduce", "overlap_comm")
_THEIRS = tuple(f"{_ZERO}{name}" for name in ("stage", *_SIZES, *_SWITCHES))
# Similarity cutoff for "did you mean": higher than usual, since many of DeepSpeed's field names resemble each other.
_ALIKE = 0.75
_OFF = MappingProxyType({"enabled": False})
# DeepSpeed overlaps communication by default at stage 3. Batch norm also runs collectives in the backward pass, so that
# two communicators would be active at once; that has to be a user's choice.
_DEFAULTS = MappingProxyType({"stage": 0, "overlap_comm": False})


def read_options(path: str, config: RunConfig, world_size: int) -> Options:
    """Read the file given as train.deepspeed.

    Args:
        path: path or URL of the file.
        config: configuration of the run.
        world_size: number of processes.

    Returns:
        The fields of zero_optimization, always including `stage`.

    Raises:
        ConfigError: if the file cannot be read, a field may not be set, or a value is invalid.
    """
    options = _read_object(path)
    zero = options.pop("zero_optimization", {})
    is_object = isinstance(zero, dict)
    require(is_object, f"zero_optimization in {path}", 'an object such as {"stage": 2}', json.dumps(zero))
    ours = _ours(config, world_size)
    chosen = dict(_DEFAULTS)
    for name, value in (options | {f"{_ZERO}{name}": value for name, value in zero.items()}).items():
        if name in _THEIRS:
            chosen[name.removeprefix(_ZERO)] = _checked(name, value, path)
        elif name not in ours:
            raise _unknown(name, ["zero_optimization", *_THEIRS, *ours], path)
        elif not _agrees(value, ours[name][0]):
            raise ConfigError(f"{name} = {json.dumps(value)} in {path}, but {ours[name][1]}; remove the field")
    return chosen


def fill_in(chosen: Options, config: RunConfig, world_size: int) -> Options:
    """Return DeepSpeed's complete configuration.

    Args:
        chosen: result of `read_options`.
        config: configuration of the run.
        world_size: number of processes.
    """
    # DeepSpeed requires a batch size divisible by the number of ranks, but does not compute with it: the loss is
    # already divided by the true size, and the model accumulates micro-batches within one forward and backward pass.
    share = -(-config.train.global_batch // world_size)
    return {
        "train_batch_size": share * world_size,
        "train_micro_batch_size_per_gpu": share,
        "gradient_accumulation_steps": 1,
        # With clip_by "variable", `DeepSpeedEngine.update` clips.
        "gradient_clipping": config.optimizer.clip_norm if config.optimizer.clip_by == "whole" else 0.0,
        "zero_allow_untested_optimizer": True,
        # The timer would synchronize with the device at every step.
        "timers": {"throughput": {"enabled": False}},
        # All weights are gathered and released together; none stays gathered.
        "zero_optimization": {**chosen, "stage3_param_persistence_threshold": 0},
    }


def _ours(config: RunConfig, world_size: int) -> dict[str, tuple[object, str]]:
    """Return the fields that the run's configuration determines: each with its value and a reason for messages."""
    train, optimizer = config.train, config.optimizer
    batch, accumulation = f"train.global_batch = {train.global_batch}", f"train.accumulation = {train.accumulation}"
    share = -(-train.global_batch // (world_size * train.accumulation))
    rate = optimizer.learning_rate
    adam = {"type": "Adam", "params": {"lr": rate, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0}}
    precision = (_OFF, f"train.precision = {train.precision} decides the precision")
    on_device = ({"device": "none"}, "weights and optimizer state stay on the device")
    return {
        "train_batch_size": (train.global_batch, batch),
        "train_micro_batch_size_per_gpu": (share, f"{batch} and {accumulation} make it {share} on {world_size} ranks"),
        "gradient_accumulation_steps": (train.accumulation, accumulation),
        "gradient_clipping": (optimizer.clip_norm, f"optimizer.clip_norm = {optimizer.clip_norm}"),
        "optimizer": (adam, f"the optimizer is Adam with optimizer.learning_rate = {rate}"),
        "scheduler": (None, "the learning rate follows optimizer.learning_rate_decay"),
        **dict.fromkeys(("bf16", "fp16", "amp", "torch_autocast"), precision),
        "communication_data_type": ("fp32", "gradients are summed in float32"),
        "zero_allow_untested_optimizer": (True, "Adam is the optimizer"),
        "wall_clock_breakdown": (False, "throughput is logged every train.log_every steps"),
        **dict.fromkeys((f"{_ZERO}offload_optimizer", f"{_ZERO}offload_param"), on_device),
    }


def _agrees(given: object, ours: object) -> bool:
    """Return whether a field's value equals the configuration's, or is "auto"."""
    if given == "auto" or (given == ours and isinstance(given, bool) == isinstance(ours, bool)):
        return True
    if not isinstance(given, dict):
        return False
    if ours is _OFF:
        return not given.get("enabled", False)
    return isinstance(ours, dict) and all(name in ours and _agrees(value, ours[name]) for name, value in given.items())


def _unknown(name: str, known: Iterable[str], path: str) -> ConfigError:
    """Return the error for an unknown field, with the nearest known one, at the top level or in zero_optimization."""
    fields = {field.removeprefix(_ZERO): field for field in known}
    near = difflib.get_close_matches(name.removeprefix(_ZERO), fields, n=1, cutoff=_ALIKE)
    hint = f"; did you mean {fields[near[0]]!r}?" if near else ""
    return ConfigError(f"{name} in {path} is not one of the fields that can be set: {', '.join(_THEIRS)}{hint}")


def _checked(name: str, value: object, path: str) -> bool | int:
    """Return the value of a field after validation."""
    field, where = name.removeprefix(_ZERO), f"{name} in {path}"
    if field in _SWITCHES:
        require(isinstance(value, bool), where, "true or false", json.dumps(value))
        return bool(value)
    # Accept floats, since DeepSpeed's own examples write sizes such as 5e8.
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise ConfigError(f"{where} must be a whole number, not {json.dumps(value)}")
    number = int(value)
    if field == "stage":
        require(number in range(4), where, "0, 1, 2 or 3", number)
    else:
        require(number >= 1, where, "at least 1", number)
        require(number % 2 == 0 or field != "allgather_bucket_size", where, "even", number)
    return number


def _read_object(path: str) -> Options:
    """Read a JSON file that contains an object."""
    try:
        with open_file(path) as file:
            options = json.loads(file.read().decode())
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} (train.deepspeed) is not JSON ({error}); see configs/deepspeed") from error
    # File systems raise these for missing files, unknown hosts and lacking permissions.
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path} ({error}); train.deepspeed must name a JSON file") from error
    if not isinstance(options, dict):
        raise ConfigError(
            f"{path} (train.deepspeed) must contain an object, not {json.dumps(options)}; see configs/deepspeed"
        )
    return options
