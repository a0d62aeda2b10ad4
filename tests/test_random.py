"""The counter-based generator: SplitMix64 bits for any shape, and the distributions derived from them."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgloc import random
from sgloc.random import Purpose

# The published test values of SplitMix64 for the seed 1234567.
PUBLISHED_SEED = 1234567
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]
MANY = 1 << 20
WORD = 1 << 64

signed = st.integers(-(2**63), 2**63 - 1)


def split_mix(seed: int, number: int) -> int:
    """Return output `number`, counted from 0, of SplitMix64, in Python integers."""
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def key_of(*parts: int) -> torch.Tensor:
    key = torch.tensor(parts[0])
    for part in parts[1:]:
        key = random.fold(key, part)
    return key


def test_bits_are_the_published_sequence() -> None:
    outputs = random.bits(torch.tensor(PUBLISHED_SEED), torch.arange(5))
    assert [value % WORD for value in outputs.tolist()] == PUBLISHED


@given(signed, st.integers(0, 2**62))
def test_bits_are_split_mix_of_any_seed(seed: int, number: int) -> None:
    output = int(random.bits(torch.tensor(seed), torch.tensor(number)))
    assert output % WORD == split_mix(seed % WORD, number)


@given(st.lists(signed, min_size=1, max_size=4), st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_a_value_depends_on_its_own_key_and_counter_alone(keys: list[int], counters: list[int]) -> None:
    key, counter = torch.tensor(keys), torch.tensor(counters)
    for distribution in (random.bits, random.uniform, random.normal):
        table = distribution(key[:, None], counter)
        assert table.shape == (len(keys), len(counters))
        for row, column in itertools.product(range(len(keys)), range(len(counters))):
            assert table[row, column] == distribution(key[row], counter[column])


def test_a_mask_depends_on_its_own_key_alone_and_is_a_prefix_of_a_wider_one() -> None:
    keys = random.bits(torch.tensor(5), torch.arange(6))
    masks = random.keep_mask(keys, 11, 0.6)
    assert masks.shape == (6, 11)
    assert masks.dtype == torch.float32
    for row in range(6):
        torch.testing.assert_close(masks[row], random.keep_mask(keys[row : row + 1], 11, 0.6)[0], rtol=0, atol=0)
    torch.testing.assert_close(masks, random.keep_mask(keys, 30, 0.6)[:, :11], rtol=0, atol=0)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_fold_takes_numbers_as_it_takes_tensors(key: int, part: int) -> None:
    def signed_tensor(value: int) -> torch.Tensor:
        return torch.tensor(value - WORD if value >= WORD // 2 else value)

    expected = random.fold(signed_tensor(key), signed_tensor(part))
    assert random.fold(key, part) == expected
    assert random.fold(signed_tensor(key)[None], part).tolist() == [int(expected)]
    assert random.fold(key, signed_tensor(part)[None]).tolist() == [int(expected)]


def test_folded_keys_are_all_different() -> None:
    # Pairs with the same sum, or the same pair in another order, must give different keys.
    parts = torch.arange(-300, 300)
    of_numbers = random.fold(parts[:, None], parts)
    of_folded = random.fold(random.fold(7, parts)[:, None], parts)
    assert len({*of_numbers.flatten().tolist(), *of_folded.flatten().tolist()}) == 2 * 600 * 600


def test_uniform_moments_and_range() -> None:
    values = random.uniform(key_of(1, Purpose.SCALE), torch.arange(MANY)).double()
    assert values.min() >= 0
    assert values.max() < 1
    # Four standard errors of each moment.
    assert float(values.mean()) == pytest.approx(1 / 2, abs=4 * math.sqrt(1 / 12 / MANY))
    assert float(values.var()) == pytest.approx(1 / 12, abs=4 * math.sqrt(1 / 180 / MANY))
    counts = torch.histc(values, 64, 0, 1)
    chi_square = float(((counts - MANY / 64) ** 2).sum() / (MANY / 64))
    assert chi_square == pytest.approx(63, abs=4 * math.sqrt(2 * 63))


def test_normal_moments_and_tails() -> None:
    values = random.normal(key_of(1, Purpose.LATENT), torch.arange(MANY)).double()
    assert values.isfinite().all()
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        moment = float((values**power).mean())
        assert moment == pytest.approx(expected, abs=4 * math.sqrt(variance / MANY)), power
    for bound in (1.0, 2.0, 3.0):
        share = math.erfc(bound / math.sqrt(2))
        assert float((values.abs() > bound).double().mean()) == pytest.approx(share, abs=4 * math.sqrt(share / MANY))


@pytest.mark.parametrize("keep", [0.5, 0.75, 0.9, 1 / 3])
def test_keep_mask_is_inverted_dropout(keep: float) -> None:
    mask = random.keep_mask(random.bits(torch.tensor(3), torch.arange(1024)), 1024, keep)
    probability = round(keep * 65536) / 65536
    assert sorted(set(mask.flatten().tolist())) == pytest.approx([0, 1 / probability], rel=1e-7)
    kept = (mask > 0).double()
    error = math.sqrt(probability * (1 - probability) / MANY)
    assert float(kept.mean()) == pytest.approx(probability, abs=4 * error)
    # The expectation must be 1 in every row and column, not only overall.
    assert float(kept.mean(0).min()) > probability - 6 * error * 32
    assert float(kept.mean(1).max()) < probability + 6 * error * 32


@pytest.mark.parametrize("count", [4, 65536 - 4])
def test_keep_mask_keeps_exactly_the_stated_share(count: int) -> None:
    # Near the ends of the range a threshold off by 1 in 65536 becomes visible.
    mask = random.keep_mask(random.bits(torch.tensor(11), torch.arange(1 << 12)), 1 << 11, count / 65536)
    rare = min(int((mask > 0).sum()), int((mask == 0).sum()))
    expected = mask.numel() * 4 / 65536
    assert rare == pytest.approx(expected, abs=3 * math.sqrt(expected))
    assert float(mask.max()) == pytest.approx(65536 / count, rel=1e-7)


def test_keep_mask_of_one_keeps_everything() -> None:
    mask = random.keep_mask(torch.arange(3), 10, 1.0)
    torch.testing.assert_close(mask, torch.ones(3, 10))


def correlations(rows: torch.Tensor) -> torch.Tensor:
    """Return the correlations of all pairs of distinct rows of [n, m]."""
    table = torch.corrcoef(rows.double())
    return table[torch.ones_like(table, dtype=torch.bool).triu(1)]


@pytest.mark.parametrize("distribution", [random.uniform, random.normal])
def test_different_purposes_keys_and_samples_are_uncorrelated(
    distribution: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    counter = torch.arange(1 << 14)
    purposes = torch.stack([key_of(0, purpose) for purpose in Purpose])
    neighbours = torch.arange(-8, 8)  # of sample ids, epochs or seeds
    for keys in (purposes, random.fold(1, neighbours), random.fold(neighbours, 1), neighbours):
        found = correlations(distribution(keys[:, None], counter))
        assert float(found.abs().max()) < 5 / math.sqrt(len(counter))


def test_neighbouring_counters_are_uncorrelated() -> None:
    values = random.uniform(torch.tensor(0), torch.arange(MANY + 8))
    shifted = torch.stack([values[shift : shift + MANY] for shift in range(8)])
    assert float(correlations(shifted).abs().max()) < 5 / math.sqrt(MANY)


def test_purposes_keep_their_numbers() -> None:
    # The numbers are part of every run's identity.
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "BLOCK_ORDER": 1,
        "WINDOW_ORDER": 2,
        "SCALE": 3,
        "DROP_POINT": 4,
        "DISTURB": 5,
        "LATENT": 6,
        "ENCODER_FORWARD": 7,
        "ENCODER_BACKWARD": 8,
        "DECODER": 9,
        "SAMPLE_COMPONENT": 10,
        "SAMPLE_PEN": 11,
        "SAMPLE_POINT": 12,
        "RASTER": 13,
        "CLASSIFIER": 14,
        "TRANSLATE": 15,
    }
