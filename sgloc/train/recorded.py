"""What a run writes down of its options: places that mean the same from every folder, and no secrets."""

import dataclasses
import functools
import operator
import os.path
from typing import Any

from sgloc.config import RunConfig, walk
from sgloc.masking import mask, mask_all


def recorded_options(config: RunConfig) -> dict[str, Any]:
    """A configuration as a nest of dictionaries that may be kept, shown and sent to services."""
    options: dict[str, Any] = dataclasses.asdict(config)
    for name, option, place in walk(config):
        if option.metadata.get("place"):
            *sections, last = name.split(".")
            functools.reduce(operator.getitem, sections, options)[last] = recorded_place(place)
    return mask_all(options)  # type: ignore[no-any-return]


def recorded_place(place: str) -> str:
    """A path, made absolute, or a URL, without its secrets."""
    is_path = bool(place) and "://" not in place and "::" not in place
    return os.path.abspath(place) if is_path else mask(place)  # noqa: PTH100, links stay as they are
