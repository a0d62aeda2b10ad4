"""Matrix products, computed by whichever library, against float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgloc.nn.product import Linear, accumulate, multiply, product

LAYOUTS = ("contiguous", "transposed", "columns", "rows", "expanded")


def matrix(num_rows: int, num_columns: int, layout: str, dtype: torch.dtype) -> torch.Tensor:
    """Return a random matrix with one of several memory layouts."""
    generator = torch.Generator().manual_seed(num_rows * 100 + num_columns)
    if layout == "expanded":
        return torch.randn(1, num_columns, generator=generator).to(dtype).expand(num_rows, num_columns)
    values = torch.randn(2 * num_rows, 2 * num_columns, generator=generator).to(dtype)
    return {
        "contiguous": values[:num_rows, :num_columns].contiguous(),
        "transposed": values[:num_rows, :num_columns].t().contiguous().t(),
        "columns": values[:num_rows, num_columns:],
        "rows": values[::2, ::2],
    }[layout]


@given(
    *[st.integers(0, 9)] * 3,
    *[st.sampled_from(LAYOUTS)] * 2,
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_any_shape_and_layout(
    n: int, a: int, b: int, rows_layout: str, weight_layout: str, has_bias: bool, dtype: torch.dtype
) -> None:
    rows, weight = matrix(n, a, rows_layout, dtype), matrix(a, b, weight_layout, dtype)
    bias = torch.linspace(-1, 1, b).to(dtype) if has_bias else None
    expected = rows.double() @ weight.double() + (0 if bias is None else bias.double())
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 0.1}[dtype]
    result = product(rows, weight, bias)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
    out = torch.full((n, b), torch.nan, dtype=dtype)
    assert product(rows, weight, bias, out=out) is out
    torch.testing.assert_close(out, result, rtol=0, atol=0)
    total = torch.ones(n, b, dtype=torch.promote_types(dtype, torch.float32))
    accumulate(total, rows.to(total.dtype), weight)
    torch.testing.assert_close(total.double(), 1 + rows.double() @ weight.double(), rtol=tolerance, atol=tolerance)


def test_gradients() -> None:
    shapes = ((3, 4), (4, 2), (2,))
    tensors = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(multiply, tuple(tensors))
    assert torch.autograd.gradcheck(multiply, tuple(tensors[:2]))
    assert torch.autograd.gradcheck(lambda weight: multiply(tensors[0].detach(), weight), (tensors[1],))


def test_gradients_in_float32_are_those_of_float64() -> None:
    rows, weight = torch.randn(70, 40, requires_grad=True), torch.randn(40, 30, requires_grad=True)
    gradients = torch.autograd.grad(multiply(rows, weight).square().sum(), (rows, weight))
    wide = [tensor.detach().double().requires_grad_() for tensor in (rows, weight)]
    expected = torch.autograd.grad((wide[0] @ wide[1]).square().sum(), wide)
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("autocast", [False, True])
def test_linear_is_torchs(autocast: bool) -> None:
    layer = Linear(5, 3)
    assert layer.bias.abs().max() == 0
    with torch.no_grad():
        layer.bias.uniform_()
    rows = torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        mine, theirs = layer(rows), torch.nn.functional.linear(rows, layer.weight, layer.bias)
    assert mine.dtype == theirs.dtype
    torch.testing.assert_close(mine, theirs, rtol=2e-2 if autocast else 1e-6, atol=2e-2 if autocast else 1e-6)
