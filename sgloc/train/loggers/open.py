"""The loggers that a configuration asks for."""

import secrets

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from sgloc.config import RunConfig
from sgloc.errors import ConfigError
from sgloc.train.loggers.guarded import Guarded
from sgloc.train.loggers.jsonl import JSONLines
from sgloc.train.loggers.picture_files import PictureFiles
from sgloc.train.loggers.protocol import Logger
from sgloc.train.loggers.tensorboard import TensorBoard
from sgloc.train.loggers.terminal import Terminal
from sgloc.train.loggers.wandb import WeightsAndBiases


def shows_galleries(config: RunConfig) -> bool:
    """Whether there is anything that galleries are drawn for."""
    return config.log.gallery > 0 and (config.log.tensorboard or config.log.wandb != "disabled")


def open_loggers(loggers: list[Logger], config: RunConfig, resumed_step: int, wandb_id: str | None) -> str | None:
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
    run_dir, log = config.train.run_dir, config.log
    file_system, root = fsspec.core.url_to_fs(run_dir)
    folder = str(root) if isinstance(file_system, LocalFileSystem) else None
    if log.tensorboard and folder is None:
        raise ConfigError(
            f"TensorBoard's files grow with every line, which files in {run_dir} cannot; "
            "give a local train.run_dir, or leave log.tensorboard out"
        )
    if log.wandb != "disabled":
        wandb_id = wandb_id or secrets.token_hex(4)
    try:
        loggers.append(Guarded(JSONLines(run_dir, resumed_step)))
        loggers.append(Guarded(Terminal(config.train.num_steps)))
        if log.tensorboard:
            loggers.append(Guarded(TensorBoard(f"{folder}/tensorboard", resumed_step)))
        if shows_galleries(config):
            loggers.append(Guarded(PictureFiles(run_dir)))
        if log.wandb != "disabled" and wandb_id:
            loggers.append(Guarded(WeightsAndBiases(config, wandb_id, folder)))
    except OSError as error:
        raise ConfigError(
            f"the metrics of {run_dir} cannot be written ({error}); make room, or give another"
        ) from error
    return wandb_id


def close_loggers(loggers: list[Logger]) -> None:
    """Close loggers, those first that were opened first: W&B may take its time."""
    for logger in loggers:
        logger.close()
