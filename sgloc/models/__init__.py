"""Models, one folder each: options, network, recipe, and the galleries drawn during training.

The kind of a model is one of:

- the name of its folder in this package;
- `package:Recipe`, for a model outside this package; `package` must be importable;
- the name of an entry point in the group `sgloc.models`, provided by an installed package.

A model's code is imported only when its recipe is requested.
"""

import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from sgloc.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from sgloc.train.recipe import Recipe

DEFAULT_KIND = "sketchgloc"
_GROUP = "sgloc.models"


def _known() -> dict[str, EntryPoint]:
    """Return the models of this package and of installed packages, by kind.

    An installed package cannot override a model of this package.
    """
    own = [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg]
    installed = {point.name: point for point in entry_points(group=_GROUP)}
    return installed | {kind: EntryPoint(kind, f"{__name__}.{kind}.recipe:RECIPE", _GROUP) for kind in own}


def recipe_of(kind: str) -> "Recipe":
    """Return the recipe of a model kind.

    This imports the model's code, so `kind` must come from the user, never from a file.

    Raises:
        ConfigError: if the model is unknown or cannot be imported.
    """
    known = _known()
    point = EntryPoint(kind, kind, _GROUP) if ":" in kind else known.get(kind)
    if point is None:
        raise ConfigError(f"unknown model {kind!r}; choose one of {', '.join(sorted(known))}, or pass package:Recipe")
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the model {kind} cannot be imported ({error}); install its package or add its folder to PYTHONPATH"
        ) from error
    return found() if isinstance(found, type) else found  # type: ignore[no-any-return]


def recorded_kind(config: Mapping[str, Any]) -> str:
    """Return the model kind recorded in a checkpoint's configuration."""
    model = config.get("model")
    kind = model.get("kind") if isinstance(model, Mapping) else None
    # Checkpoints older than the option `model.kind` hold one of two models.
    return str(kind or ("sketch_a_net" if "raster" in config else DEFAULT_KIND))


def recorded_recipe(config: Mapping[str, Any], named: str = "", where: str = "the checkpoint") -> "Recipe":
    """Return the recipe of the model stored in a checkpoint.

    Args:
        config: the checkpoint's configuration.
        named: the kind named by the user; empty uses the kind in the configuration, provided that it is a model of
            this package or of an installed one. No other code is imported because a file names it.
        where: how error messages refer to the checkpoint.

    Raises:
        CheckpointError: if the user has to name the kind.
        ConfigError: if the model named by the user cannot be imported.
    """
    kind = recorded_kind(config)
    if not named and kind not in _known():
        raise CheckpointError(
            f"{where} holds the model {kind!r}, which neither this program nor an installed package provides; code "
            f"named by a file is never run: if you trust that code, name the kind {kind!r} yourself"
        )
    return recipe_of(named or kind)
