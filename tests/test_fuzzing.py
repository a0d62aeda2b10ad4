"""`make test` tries the same examples every time; `make fuzz` tries new ones, reproducible from its seed."""

import random
from collections.abc import Iterator

import hypothesis
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing import examples, times


def drawn(seed: int | None = None) -> list[int]:
    """Return the examples that a test decorated with `examples(30)` tries."""
    tried: list[int] = []

    @examples(30)
    @given(st.integers())
    def test_anything(number: int) -> None:
        tried.append(number)

    (test_anything if seed is None else hypothesis.seed(seed)(test_anything))()
    return tried


@pytest.fixture
def _fresh() -> Iterator[None]:
    settings.load_profile("fresh")
    yield
    settings.load_profile("same")


def test_the_same_examples_are_tried_each_time() -> None:
    assert times(30) == 30
    assert drawn() == drawn()
    assert len(drawn()) == 30


@pytest.mark.usefixtures("_fresh")
def test_others_are_tried_at_length_and_a_seed_brings_them_back() -> None:
    assert times(30) == 600
    assert drawn() != drawn()
    assert drawn(seed=3) == drawn(seed=3) != drawn(seed=4)
    assert len(drawn()) == 600


@pytest.mark.parametrize("number", [0, 1])
def test_nothing_is_left_of_the_tests_before(number: int) -> None:
    assert [random.random(), torch.rand(()).item()] == pytest.approx([0.8444218515, 0.4962565899]), number
