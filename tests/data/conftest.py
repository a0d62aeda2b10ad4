"""Fixtures for the tests of the readers."""

import random
from collections.abc import Callable

import pytest


def _mutate(data: bytes, generator: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(generator.randint(1, 6)):
        place = generator.randrange(len(mutated))
        change = generator.randrange(3)
        if change == 0:
            mutated[place] = generator.choice([generator.randrange(256), 10, 48, 255])
        elif change == 1:
            del mutated[place : place + generator.randint(1, 9)]
        else:
            mutated[place:place] = generator.randbytes(generator.randint(1, 4))
    return bytes(mutated)


@pytest.fixture
def mutate() -> Callable[[bytes, random.Random], bytes]:
    """Return a function that changes, removes or inserts a few bytes."""
    return _mutate


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> random.Random:
    """A generator with a fixed seed, or with the seed that `make fuzz` prints."""
    return random.Random(request.config.getoption("--hypothesis-seed") or 0)
