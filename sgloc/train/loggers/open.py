"""Open the loggers that a configuration asks for."""

import dataclasses
import os
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sgloc.config import LogConfig, RunConfig
from sgloc.errors import ConfigError
from sgloc.storage import is_local, local_path
from sgloc.train.loggers.base import Loggers
from sgloc.train.loggers.jsonl import JSONLines
from sgloc.train.loggers.picture_files import PictureFiles
from sgloc.train.loggers.tensorboard import TensorBoard
from sgloc.train.loggers.terminal import Terminal
from sgloc.train.loggers.wandb import WeightsAndBiases

# For each option, the environment variable of W&B that applies if the option is not set, and the default without it.
_VARIABLES = {
    "wandb_project": ("WANDB_PROJECT", "sketchgloc"),
    "wandb_entity": ("WANDB_ENTITY", ""),
    "wandb_group": ("WANDB_RUN_GROUP", ""),
    "wandb_name": ("WANDB_NAME", ""),
}
_MODES = MappingProxyType(
    {"disabled": "disabled", "offline": "offline", "dryrun": "offline", "online": "online", "run": "online"}
)
# Limit for writing metrics or pictures to a store, since the other ranks wait meanwhile.
_PATIENCE_SECONDS = 10.0


def with_environment(log: LogConfig, environment: Mapping[str, str]) -> LogConfig:
    """Fill in unset logging options from the user's environment variables.

    Raises:
        ConfigError: if a variable has an invalid value.
    """
    found: dict[str, Any] = {
        name: getattr(log, name) or environment.get(variable) or otherwise
        for name, (variable, otherwise) in _VARIABLES.items()
    }
    found["wandb"] = _mode(environment) if log.wandb == "auto" else log.wandb
    return dataclasses.replace(log, **found)


def _mode(environment: Mapping[str, str]) -> str:
    if environment.get("WANDB_DISABLED", "").lower() in ("1", "true", "t", "yes", "y"):
        return "disabled"
    wanted = environment.get("WANDB_MODE") or "disabled"
    if wanted not in _MODES:
        raise ConfigError(f"WANDB_MODE is {wanted!r}, not one of {', '.join(_MODES)}; correct it, or set log.wandb")
    return _MODES[wanted]


def _uses_wandb(log: LogConfig) -> bool:
    return log.wandb in ("offline", "online")


def shows_galleries(config: RunConfig) -> bool:
    """Return whether the run should draw galleries: they are enabled, and TensorBoard or W&B can show them."""
    return config.log.gallery > 0 and (config.log.tensorboard or _uses_wandb(config.log))


def open_loggers(loggers: Loggers, config: RunConfig, resumed_step: int, wandb_id: str | None) -> str | None:
    """Open a run's loggers. Call on rank 0 only.

    Args:
        loggers: collection to add them to, one by one, so that the caller can close those opened before an error.
        config: configuration of the run.
        resumed_step: step at which the run starts or resumes.
        wandb_id: id of the run's Weights & Biases run; None if it has none yet.

    Returns:
        The id of the Weights & Biases run, generated if needed; None without one.

    Raises:
        ConfigError: if a logger's package is not installed, or its files cannot be written.
    """
    run_dir, log = config.train.run, config.log
    patience = min(_PATIENCE_SECONDS, config.train.timeout / 4)
    folder = local_path(run_dir) if is_local(run_dir) else None
    if log.tensorboard and folder is None:
        raise ConfigError(
            f"TensorBoard appends to its files, which {run_dir} does not support; "
            "choose a local run folder (train.run), or unset log.tensorboard"
        )
    add = loggers.members.append
    try:
        add(JSONLines(run_dir, resumed_step, patience))
        add(Terminal(config.train.num_steps, resumed_step))
        if log.tensorboard:
            add(TensorBoard(f"{folder}/tensorboard", resumed_step))
        if shows_galleries(config):
            add(PictureFiles(run_dir, patience))
        if _uses_wandb(log):
            wandb_id = wandb_id or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
            add(WeightsAndBiases(config, wandb_id, folder))
    except OSError as error:
        raise ConfigError(
            f"cannot write the metrics of {run_dir} ({error}); free disk space, or choose another run folder "
            "(train.run)"
        ) from error
    return wandb_id
