"""TF32, in which CUDA may compute products of float32 numbers: faster, with 10 binary digits in place of 23.

By itself torch lets cuDNN use it, for LSTMs and convolutions; TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, which NVIDIA's
containers set, lets matrix products use it too. Here float32 means float32, unless a run asks for TF32.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from sgloc.errors import ConfigError

# Read by NVIDIA's libraries themselves, whatever torch tells them.
_OVERRIDE = "NVIDIA_TF32_OVERRIDE"


@contextlib.contextmanager
def float32_products(device: torch.device, tf32: bool = False) -> Iterator[None]:
    """Inside, float32 products are computed in float32 or, where that is allowed, in TF32; it is a state of the whole
    process. On a CPU they are always computed in float32.

    Args:
        device: that computes.
        tf32: allow TF32 on CUDA.

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
        wanted = "float32 is to be computed" + (" in TF32 (train.tf32)" if tf32 else " as such")
        raise ConfigError(f"{_OVERRIDE} is {override}, which overrules torch, but {wanted}; unset it")


def _new_switches() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    return torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn


def _switches() -> tuple[str, bool, list[str]]:
    """What torch's switches say now: the two of the older set, and the newer set."""
    matmul, new = torch.get_float32_matmul_precision(), [switch.fp32_precision for switch in _new_switches()]
    # torch tells what the older one of cuDNN says only while the newer ones agree with it.
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
    """torch 2.9 warns of the older switches, which it reads itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _set(matmul: str, cudnn: bool, new: list[str]) -> None:
    """Set both sets of switches; the older ones change the newer."""
    with _silent():
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn
    for switch, precision in zip(_new_switches(), new, strict=True):
        switch.fp32_precision = precision
