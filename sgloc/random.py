"""Stateless, counter-based random numbers (DESIGN contract 2).

Every random number of a run is a pure function of a key, derived from (seed, purpose, epoch, sample id), and a counter.
There is no generator state to save, and nothing depends on the world size. The function is SplitMix64 (Steele, Lea and
Flood 2014), identical on every device and in every version.
"""

import enum
import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_MASK = (1 << 64) - 1

Integers = TypeVar("Integers", Tensor, npt.NDArray[np.int64])


class Purpose(enum.IntEnum):
    """The purpose of a random number; numbers for different purposes are independent.

    The values are part of a run's identity: never renumber them.
    """

    BLOCK_ORDER = 1
    WINDOW_ORDER = 2
    SCALE = 3
    DROP_POINT = 4
    DISTURB = 5
    LATENT = 6
    ENCODER_FORWARD = 7
    ENCODER_BACKWARD = 8
    DECODER = 9
    SAMPLE_COMPONENT = 10
    SAMPLE_PEN = 11
    SAMPLE_POINT = 12
    RASTER = 13
    CLASSIFIER = 14
    TRANSLATE = 15


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _signed(0x94D049BB133111EB)


def _xor_shift(x: Integers, bits: int) -> Integers:
    return x ^ ((x >> bits) & ((1 << (64 - bits)) - 1))


def _mix(x: Integers) -> Integers:
    x = _xor_shift(x, 30) * _MULTIPLIER_1
    x = _xor_shift(x, 27) * _MULTIPLIER_2
    return _xor_shift(x, 31)


def fold(key: Tensor | int, part: Tensor | int) -> Tensor:
    """Derive a new key from a key and one more component.

    Args:
        key: int64 tensor of any shape, or a number.
        part: int64 tensor whose shape broadcasts with the key's, or a number.

    Returns:
        int64 tensor of the broadcast shape.
    """
    key_tensor = key if isinstance(key, Tensor) else torch.tensor(_signed(key))
    part_tensor = part if isinstance(part, Tensor) else torch.tensor(_signed(part), device=key_tensor.device)
    return _mix(key_tensor ^ _mix(part_tensor + _GOLDEN))


def bits(key: Tensor, counter: Tensor) -> Tensor:
    """Return 64 random bits for each (key, counter), int64 of broadcastable shapes; int64 of the broadcast shape."""
    return _mix(key + (counter + 1) * _GOLDEN)


def permutation(key: Tensor, size: int) -> npt.NDArray[np.int64]:
    """Return a random permutation, int64 [size]: the counters below `size`, sorted by their bits under one key."""
    # numpy takes a fifth of torch's time for a permutation of a thousand elements.
    counter = np.arange(1, size + 1, dtype=np.int64)
    mixed: npt.NDArray[np.int64] = _mix(int(key) + counter * _GOLDEN)
    return np.argsort(mixed, kind="stable")


def uniform(key: Tensor, counter: Tensor) -> Tensor:
    """Return uniform float32 in [0, 1), with 24 random bits, for each (key, counter), int64 of broadcastable shapes."""
    return ((bits(key, counter) >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def normal(key: Tensor, counter: Tensor) -> Tensor:
    """Return standard normal float32 (Box-Muller) for each (key, counter), int64 of broadcastable shapes."""
    random_bits = bits(key, counter)
    # Add 1 to avoid the logarithm of 0; compute in float64 so that all devices round to the same float32 in all but the
    # rarest cases.
    radius = torch.sqrt(-2 * torch.log((((random_bits >> 32) & 0xFFFFFFFF) + 1).double() * 2.0**-32))
    angle = (random_bits & 0xFFFFFFFF).double() * (2 * math.pi * 2.0**-32)
    return (radius * torch.cos(angle)).float()


def keep_mask(key: Tensor, width: int, keep: float) -> Tensor:
    """Return inverted-dropout masks: 1/keep with probability `keep`, else 0.

    Args:
        key: int64 [n], one key per row.
        width: number of elements per row.
        keep: probability in (0, 1], rounded to a multiple of 2**-16.

    Returns:
        float32 [n, width].
    """
    threshold = max(1, round(keep * 65536))
    counter = torch.arange((width + 3) // 4, device=key.device)
    # Each element uses 16 bits, so one 64-bit word covers four elements.
    lanes = bits(key[:, None], counter).view(torch.int16)[:, :width]
    return (lanes <= threshold - 32769).to(torch.float32) * (65536 / threshold)
