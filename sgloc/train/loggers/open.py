"""The loggers that a configuration asks for."""

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

# What W&B itself reads where an option is not given, and what it is where that says nothing.
_VARIABLES = {
    "wandb_project": ("WANDB_PROJECT", "sketchgloc"),
    "wandb_entity": ("WANDB_ENTITY", ""),
    "wandb_group": ("WANDB_RUN_GROUP", ""),
    "wandb_name": ("WANDB_NAME", ""),
}
_MODES = MappingProxyType(
    {"disabled": "disabled", "offline": "offline", "dryrun": "offline", "online": "online", "run": "online"}
)
# For a write of metrics or pictures to a store, while the other ranks wait.
_PATIENCE_SECONDS = 10.0


def with_environment(log: LogConfig, environment: Mapping[str, str]) -> LogConfig:
    """Options of logging in which what was not given is what the user's environment says.

    Raises:
        ConfigError: if the environment says what cannot be.
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
        raise ConfigError(f"WANDB_MODE is {wanted!r}, which is none of {', '.join(_MODES)}; set it, or give log.wandb")
    return _MODES[wanted]


def _uses_wandb(log: LogConfig) -> bool:
    return log.wandb in ("offline", "online")


def shows_galleries(config: RunConfig) -> bool:
    """Whether there is anything that galleries are drawn for."""
    return config.log.gallery > 0 and (config.log.tensorboard or _uses_wandb(config.log))


def open_loggers(loggers: Loggers, config: RunConfig, resumed_step: int, wandb_id: str | None) -> str | None:
    """Open a run's loggers, none of which can stop it from then on. On rank 0 only.

    Args:
        loggers: to which they are added one by one, so that those that are open can be closed whatever happens.
        config: of the run.
        resumed_step: at which it goes on.
        wandb_id: of its Weights & Biases run; None when there is none yet.

    Returns:
        That id, which is made up here when it is first needed.

    Raises:
        ConfigError: if one of them is not installed, or cannot write where it has to.
    """
    run_dir, log = config.train.run, config.log
    patience = min(_PATIENCE_SECONDS, config.train.timeout / 4)
    folder = local_path(run_dir) if is_local(run_dir) else None
    if log.tensorboard and folder is None:
        raise ConfigError(
            f"TensorBoard's files grow with every line, which files in {run_dir} cannot; "
            "give a local train.run, or leave log.tensorboard out"
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
            f"the metrics of {run_dir} cannot be written ({error}); make room, or give another"
        ) from error
    return wandb_id
