"""Rebuilding a network from the configuration stored in a file."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sgloc.config import RunConfig, rebuilt
from sgloc.errors import CheckpointError, ConfigError
from sgloc.train.recipe import DataFacts, Recipe, Trainable

_SHARED = {one.name for one in dataclasses.fields(RunConfig)} - {"model"}


def build_network(recipe: Recipe, options: Mapping[str, Any], data: DataFacts, where: str) -> Trainable:
    """Build a network from its stored configuration, with untrained weights.

    Args:
        recipe: the model's recipe.
        options: the sections of the configuration, as stored in a checkpoint or an export; only `model` and sections
            specific to the model are used.
        data: facts about the data set that the model was trained on.
        where: how error messages refer to the file.

    Raises:
        CheckpointError: if the options do not fit the model.
    """
    own = {one.name for one in dataclasses.fields(recipe.config_type)} - _SHARED
    try:
        config = rebuilt(recipe.config_type, {name: options[name] for name in own & options.keys()})
        return recipe.build_model(config, data)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{where} holds another model: its configuration does not fit this program ({error})"
        ) from error
