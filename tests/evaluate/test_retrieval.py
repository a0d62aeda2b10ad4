"""Retrieval ranks against literal float64 distances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgloc.evaluate.metrics import retrieval
from sgloc.evaluate.metrics.retrieval import retrieval_ranks
from tests.evaluate.ranks import literal_ranks


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("_QUERIES", 7), ("_TILE", 5), ("_PAIRS", 3), ("_ROWS", 2)):
        monkeypatch.setattr(retrieval, name, size)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
@pytest.mark.usefixtures("small_tiles")
def test_ranks_are_those_of_a_sort(shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randn(33, 4, generator=generator) + shift
    own = torch.randint(33, (50,), generator=generator)
    queries = gallery[own] + torch.randn(50, 4, generator=generator)
    queries[3] = torch.nan
    ranks = retrieval_ranks(queries, own, gallery).tolist()
    assert ranks == literal_ranks(queries, own, gallery)
    assert len(set(ranks)) > 5


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 3))
def test_ties_go_to_whoever_stands_first(seed: int, size: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # With so few values, many codes and many distances are equal.
    gallery = torch.randint(-1, 2, (size, width), generator=generator).float()
    own = torch.randint(size, (9,), generator=generator)
    queries = torch.randint(-1, 2, (9, width), generator=generator).float()
    assert retrieval_ranks(queries, own, gallery).tolist() == literal_ranks(queries, own, gallery)


def test_codes_that_float32_products_cannot_tell_apart() -> None:
    # A cluster of codes that differ only in the last digits, far from the others.
    gallery = torch.cat([torch.randn(20, 8) * 100, torch.full((20, 8), 30.0)])
    gallery[20:, 0] += torch.arange(20) * 2e-5
    own = torch.arange(20, 40)
    queries = gallery[own].clone()
    queries[:, 0] += 0.9e-5
    assert retrieval_ranks(queries, own, gallery).tolist() == literal_ranks(queries, own, gallery)


def test_a_model_that_gives_every_sketch_the_same_code_finds_nothing() -> None:
    codes = torch.ones(60, 3)
    ranks = retrieval_ranks(codes, torch.arange(60), codes)
    assert ranks.tolist() == list(range(60))


@pytest.mark.usefixtures("small_tiles")
def test_parts_of_the_queries_have_the_same_ranks() -> None:
    gallery, own = torch.randn(40, 6), torch.arange(40)
    queries = gallery + torch.randn(40, 6)
    whole = retrieval_ranks(queries, own, gallery)
    parts = [retrieval_ranks(queries[part], own[part], gallery) for part in (slice(0, 13), slice(13, 40))]
    assert torch.equal(whole, torch.cat(parts))
