"""The built-in synthetic sample: procedural drawings in QuickDraw's file format. It is not QuickDraw data.

Each category of DS3 (METHOD 8) is a short description of parts and their positions (`animals`, `garden`, `vehicles`).
A `Hand` draws them as people do: it omits parts, varies their order and deviates from the exact curves. The sample
serves tests, demonstrations and first runs where the real files are not available.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sgloc.errors import ConfigError
from sgloc.sketch.drawing import polylines_to_stroke3
from sgloc.sketch.simplify import simplify
from sgloc.sketch.synthetic.animals import cat, giraffe, horse, pig
from sgloc.sketch.synthetic.garden import bee, flower
from sgloc.sketch.synthetic.jitter import Hand, Part
from sgloc.sketch.synthetic.vehicles import bus, car
from sgloc.storage import write_file

__all__ = ["CATEGORIES", "draw", "write_sample"]

_PLANS: Mapping[str, Callable[[Hand], Iterator[Part]]] = MappingProxyType(
    {"pig": pig, "bee": bee, "flower": flower, "bus": bus, "giraffe": giraffe, "car": car, "cat": cat, "horse": horse}
)

CATEGORIES: tuple[str, ...] = tuple(_PLANS)


def draw(category: str, generator: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Draw one drawing of a category.

    Args:
        category: one of `CATEGORIES`.
        generator: the source of all variation; the drawing is a function of its state.

    Returns:
        One int64 [n, 2] array of absolute (x, y) per stroke, simplified as QuickDraw does (METHOD 1), from 0 to 255.

    Raises:
        ConfigError: if the category is not one of `CATEGORIES`.
    """
    if category not in _PLANS:
        raise ConfigError(f"the synthetic sample has no category {category!r}; choose one of {', '.join(CATEGORIES)}")
    hand = Hand(generator)
    return simplify(hand.finish(_PLANS[category](hand)))


def write_sample(folder: str, *, num_train: int, num_valid: int, num_test: int, seed: int) -> list[str]:
    """Write one file per category, in the format of QuickDraw's sketch-rnn files (METHOD 1).

    A file has the keys train, valid and test, each an object array of int16 [N, 3] stroke-3 rows. A drawing depends
    only on seed, category, split and its index; the same arguments give the same bytes.

    Args:
        folder: output folder, a path or an fsspec URL; created if it does not exist.
        num_train: number of training drawings per category.
        num_valid: number of validation drawings per category.
        num_test: number of test drawings per category.
        seed: seed of the sample, at least 0.

    Returns:
        The paths of the files, in the order of `CATEGORIES`.

    Raises:
        ConfigError: if a number of drawings or the seed is negative.
    """
    counts = {"train": num_train, "valid": num_valid, "test": num_test}
    for name, value in (*((f"num_{split}", count) for split, count in counts.items()), ("seed", seed)):
        if value < 0:
            raise ConfigError(f"{name} of the synthetic sample is {value}; it must be at least 0")
    paths = []
    for number, category in enumerate(CATEGORIES):
        splits: dict[str, Any] = {name: np.empty(count, dtype=np.object_) for name, count in counts.items()}
        for split, drawings in enumerate(splits.values()):
            for index in range(len(drawings)):
                generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, split, index)))
                drawings[index] = polylines_to_stroke3(draw(category, generator))
        # Write to memory first, because the bytes of a zip depend on whether its file can seek.
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **splits)
        paths.append(f"{folder.rstrip('/')}/{category}.npz")
        write_file(paths[-1], buffer.getvalue())
    return paths
