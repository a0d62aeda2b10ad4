"""The built-in synthetic sample: procedural drawings in the form of QuickDraw's files. It is not QuickDraw data.

Each category of DS3 (METHOD 8) is a short description of parts in their places (`animals`, `garden`, `vehicles`), drawn
by a `Hand` that leaves parts out, draws them in an order of its own and misses the exact curve as people do. The
sample serves tests, demonstrations and first runs where the real files cannot be had.
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
        One int64 [n, 2] array of absolute (x, y) a stroke, simplified as QuickDraw does (METHOD 1), from 0 to 255.

    Raises:
        ConfigError: if the category is not one of `CATEGORIES`.
    """
    if category not in _PLANS:
        raise ConfigError(f"the synthetic sample has no category {category!r}: choose from {', '.join(CATEGORIES)}")
    hand = Hand(generator)
    return simplify(hand.finish(_PLANS[category](hand)))


def write_sample(folder: str, *, num_train: int, num_valid: int, num_test: int, seed: int) -> list[str]:
    """Write one file a category, in the form of QuickDraw's sketch-rnn files (METHOD 1).

    A file has the keys train, valid and test, each an object array of int16 [N, 3] stroke-3 rows. A drawing is a
    function of seed, category, split and its index alone; the same arguments give the same bytes.

    Args:
        folder: where the files go, a path or an fsspec URL; made if it is not there.
        num_train: drawings a category in the training split.
        num_valid: drawings a category in the validation split.
        num_test: drawings a category in the test split.
        seed: the sample's seed, at least 0.

    Returns:
        The files' paths, in the order of `CATEGORIES`.

    Raises:
        ConfigError: if a number of drawings or the seed is negative.
    """
    counts = {"train": num_train, "valid": num_valid, "test": num_test}
    for name, value in (*((f"num_{split}", count) for split, count in counts.items()), ("seed", seed)):
        if value < 0:
            raise ConfigError(f"{name} of the synthetic sample is {value}: give at least 0")
    paths = []
    for number, category in enumerate(CATEGORIES):
        splits: dict[str, Any] = {name: np.empty(count, dtype=np.object_) for name, count in counts.items()}
        for split, drawings in enumerate(splits.values()):
            for index in range(len(drawings)):
                generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, split, index)))
                drawings[index] = polylines_to_stroke3(draw(category, generator))
        # Written in memory first: a zip's bytes depend on whether its file can seek.
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **splits)
        paths.append(f"{folder.rstrip('/')}/{category}.npz")
        write_file(paths[-1], buffer.getvalue())
    return paths
