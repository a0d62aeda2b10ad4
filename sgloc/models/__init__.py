"""One folder a model: its options, network, recipe, and the pictures that it shows while it trains.

A model has a name, its kind: its folder's here; `package:Recipe`, for a model from outside, whose package must be
importable; or the name of an entry point in the group `sgloc.models`, for one that an installed package brings.
Nothing is imported before its name is asked for.
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
    """The models of this package and of installed ones, by kind; this package's names cannot be taken."""
    own = [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg]
    installed = {point.name: point for point in entry_points(group=_GROUP)}
    return installed | {kind: EntryPoint(kind, f"{__name__}.{kind}.recipe:RECIPE", _GROUP) for kind in own}


def recipe_of(kind: str) -> "Recipe":
    """The recipe of a kind of model, of which code is imported: the name must come from the user.

    Raises:
        ConfigError: if there is no such model, or it cannot be imported.
    """
    known = _known()
    point = EntryPoint(kind, kind, _GROUP) if ":" in kind else known.get(kind)
    if point is None:
        raise ConfigError(f"there is no model {kind!r}; give one of {', '.join(sorted(known))}, or package:Recipe")
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the model {kind} cannot be imported ({error}); install its package, or have PYTHONPATH name its folder"
        ) from error
    return found() if isinstance(found, type) else found  # type: ignore[no-any-return]


def recorded_kind(config: Mapping[str, Any]) -> str:
    """The kind of model of a configuration that a checkpoint holds."""
    model = config.get("model")
    kind = model.get("kind") if isinstance(model, Mapping) else None
    # Before models had names there were two.
    return str(kind or ("sketch_a_net" if "raster" in config else DEFAULT_KIND))


def recorded_recipe(config: Mapping[str, Any], named: str = "", where: str = "the checkpoint") -> "Recipe":
    """The recipe of a model that a checkpoint holds.

    Args:
        config: its configuration.
        named: the kind, where the user names it; empty: as the configuration says, if that is a model of this package
            or of an installed one. Nothing else is imported because a file names it.
        where: the checkpoint, to name it by.

    Raises:
        CheckpointError: if the user has to name it.
        ConfigError: if the model that the user named cannot be imported.
    """
    kind = recorded_kind(config)
    if not named and kind not in _known():
        raise CheckpointError(
            f"{where} is of the model {kind!r}, which neither this program nor an installed package has; code is not "
            f"run because a file names it: if you trust that code, name the kind {kind!r} yourself"
        )
    return recipe_of(named or kind)
