"""torch's TF32 switches: process state that can be tested without a GPU.

Their effect is tested in tests/virtual_cuda and by `python -m benchmarks gpu`.
"""

from collections.abc import Iterator

import pytest
import torch

from sgloc.tf32 import float32_products

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


def new() -> list[str]:
    return [torch._C._get_fp32_precision_getter("cuda", operation) for operation in ("matmul", "conv", "rnn")]


def old() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch._C._get_cudnn_allow_tf32()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = new()
    yield
    for operation, precision in zip(("matmul", "conv", "rnn"), before, strict=True):
        torch._C._set_fp32_precision_setter("cuda", operation, precision)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("device", "tf32", "expected"),
    [(CUDA, False, "ieee"), (CUDA, True, "tf32"), (CPU, False, "ieee"), (CPU, True, "ieee")],
    ids=["cuda", "cuda with tf32", "cpu", "cpu with tf32"],
)
def test_both_sets_of_switches_agree_and_are_put_back(device: torch.device, tf32: bool, expected: str) -> None:
    torch.set_float32_matmul_precision("high")
    before = new(), old()
    assert before == (["tf32"] * 3, ("high", True))
    with float32_products(device, tf32):
        assert new() == [expected] * 3
        assert old() == (("high", True) if expected == "tf32" else ("highest", False))
    assert (new(), old()) == before


def test_switches_that_contradict_each_other_are_put_back_too() -> None:
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
        old()
    before = new()
    with float32_products(CUDA):
        assert new() == ["ieee"] * 3
    assert new() == before
    torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]
    assert old() == ("highest", True)
