"""Which options make a run what it is, and what those were before they existed."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# What a resumed run may change without becoming another run: where, how long and how often, not what is computed.
_FREE_OPTIONS = frozenset(
    {
        "data.path",
        "data.prefetch",
        "data.read_threads",
        "data.read_attempts",
        "data.read_timeout",
        "data.bad_shards",
        "data.cache",
        "data.cache_gigabytes",
        "train.run",
        "train.init_from",
        "train.num_steps",
        "train.accumulation",
        "train.checkpoint_decoder",
        "train.compile",
        "train.deepspeed",
        "train.device",
        "train.log_every",
        "train.validate_every",
        "train.patience",
        "train.checkpoint_every",
        "train.keep_checkpoints",
        "train.keep_every",
        "train.save_attempts",
        "train.bad_steps",
        "train.timeout",
        "log.wandb",
        "log.wandb_project",
        "log.wandb_entity",
        "log.wandb_group",
        "log.wandb_name",
        "log.wandb_timeout",
        "log.tensorboard",
        "log.gallery",
    }
)


def identity(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The options that make a run what it is, by dotted name.

    Args:
        options: a configuration as `dataclasses.asdict` gives it.
        prefix: of the names; for the recursion.
    """
    flat: dict[str, Any] = {}
    for name, value in options.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            flat |= identity(value, f"{path}.")
        elif path not in _FREE_OPTIONS:
            flat[path] = value
    return flat


# What a run did before these options existed, where that is not their default: a checkpoint without the option was made
# so. A new option whose default changes what is computed needs an entry here.
_BEFORE: Mapping[str, Any] = MappingProxyType(
    {"data.origin": "top_left", "data.translate": False, "model.hyper_dropout": "both"}
)


def younger_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that did not exist when a configuration was written, by dotted name, with what was done then.

    Args:
        options: a configuration as a checkpoint or an export holds it.
    """
    if "raster" in options:
        # A classifier, which none of them concerns.
        return {}
    return {name: value for name, value in _BEFORE.items() if not _holds(options, name.split("."))}


def _holds(options: Any, names: list[str]) -> bool:
    first, *rest = names
    return isinstance(options, Mapping) and first in options and (not rest or _holds(options[first], rest))
