"""TF32 switches: TF32 makes float32 products on CUDA faster, with a mantissa of 10 instead of 23 bits.

By default torch allows TF32 in cuDNN, for LSTMs and convolutions; TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, which NVIDIA's
containers set, allows it for matrix products too. Here float32 means float32, unless a run enables TF32.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from sgloc.errors import ConfigError

# NVIDIA's libraries read this variable themselves, regardless of torch's settings.
_OVERRIDE = "NVIDIA_TF32_OVERRIDE"


@contextlib.contextmanager
def float32_products(device: torch.device, tf32: bool = False) -> Iterator[None]:
    """Compute float32 products in float32 or, if allowed, in TF32 while the context is active.

    The setting is process-wide. A CPU always computes in float32.

    Args:
        device: the device that computes.
        tf32: whether to allow TF32 on CUDA.

    Raises:
        ConfigError: if the environment makes NVIDIA's libraries do the opposite.
    """
    if device.type == "cuda":
        _refuse_override(tf32)
    before = _switches()
    allowed = tf32 and device.type == "cuda"
    _set("high" if allowed else "highest", allowed, ["tf32" if allowed else "ieee"] * len(_new_switches()))
    try:
        yield
    finally:
        _set(*before)


def _refuse_override(tf32: bool) -> None:
    override = os.environ.get(_OVERRIDE)
    if override and (override != "0") != tf32:
        wanted = "float32 products must be computed" + (" in TF32 (train.tf32)" if tf32 else " in float32")
        raise ConfigError(f"{_OVERRIDE} is {override}, which overrides torch, but {wanted}; unset it")


def _new_switches() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    return torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn


def _switches() -> tuple[str, bool, list[str]]:
    """Return the state of torch's switches: the two older ones, and the newer set."""
    matmul, new = torch.get_float32_matmul_precision(), [switch.fp32_precision for switch in _new_switches()]
    # torch lets the older cuDNN switch be read only while the newer ones agree with it.
    for switch in _new_switches()[1:]:
        switch.fp32_precision = "tf32"
    try:
        with _silent():
            cudnn = bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        cudnn = False
    _set(matmul, cudnn, new)
    return matmul, cudnn, new


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress torch 2.9's deprecation warnings about the older switches, which torch itself still reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _set(matmul: str, cudnn: bool, new: list[str]) -> None:
    """Set both sets of switches; the older ones first, because they change the newer ones."""
    with _silent():
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn
    for switch, precision in zip(_new_switches(), new, strict=True):
        switch.fp32_precision = precision
