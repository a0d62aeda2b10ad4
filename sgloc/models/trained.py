"""A trained network, from what a file says of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sgloc.config import RunConfig, rebuilt
from sgloc.errors import CheckpointError, ConfigError
from sgloc.train.recipe import DataFacts, Recipe, Trainable

_SHARED = {one.name for one in dataclasses.fields(RunConfig)} - {"model"}


def build_network(recipe: Recipe, options: Mapping[str, Any], data: DataFacts, where: str) -> Trainable:
    """An untrained network.

    Args:
        recipe: of its model.
        options: the sections of its configuration, as a checkpoint or an export holds them; those that the model does
            not have of its own are left out.
        data: of the data set that it was trained on.
        where: what to call the file in an error.

    Raises:
        CheckpointError: if the options do not fit the model.
    """
    own = {one.name for one in dataclasses.fields(recipe.config_type)} - _SHARED
    try:
        config = rebuilt(recipe.config_type, {name: options[name] for name in own & options.keys()})
        return recipe.build_model(config, data)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{where} is of another model: its configuration does not fit this program ({error})"
        ) from error
