"""Checks that the device agrees with the CPU."""

import os
import time
import warnings
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_checks import Facts, Setting, relative_error, require
from benchmarks.gpu_checks.models import all_gradients, make_model, small_batch, small_model
from sgloc import ops
from sgloc.evaluate.metrics.retrieval import retrieval_ranks
from sgloc.models.sketch_a_net.network import SketchANet
from sgloc.models.sketchgloc.config import CellName
from sgloc.ops.ragged import offsets_from_lengths
from sgloc.tf32 import float32_products

# Bounds of relative rounding errors; real errors are far larger.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
_GRADIENT_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3}
# Part of torch's warning about weights that cuDNN must copy into one chunk.
_SCATTERED = "single contiguous chunk"
# TF32 drops 13 of the 23 mantissa bits, so its errors exceed this.
_TF32_ERROR = 1e-5
_MODELS: tuple[tuple[CellName, CellName, str], ...] = (
    ("lstm", "hyper", "grid9"),
    ("layer_norm", "layer_norm", "nearest"),
    ("hyper", "lstm", "complete"),
)


def _grid_operations(num_nodes: list[int], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the outputs and gradients of every grid operator, on sketches with the given numbers of strokes."""
    generator = torch.Generator().manual_seed(sum(num_nodes))
    lengths = torch.randint(1, 20, (sum(num_nodes),), generator=generator)
    points = torch.randint(-4, 5, (int(lengths.sum()), 2), generator=generator).to(dtype)
    embeddings = torch.randn(sum(num_nodes), 150, generator=generator, dtype=torch.float64).to(dtype)
    gradient = torch.randn(ops.NUM_CELLS, sum(num_nodes), 150, generator=generator, dtype=torch.float64).to(dtype)
    nodes, sketches = offsets_from_lengths(lengths), offsets_from_lengths(torch.tensor(num_nodes))
    points, nodes, sketches, gradient = (tensor.to(device) for tensor in (points, nodes, sketches, gradient))
    embeddings = embeddings.to(device).requires_grad_()
    boxes = ops.node_boxes(points, nodes)
    adjacency = ops.node_adjacency(points, nodes, sketches)
    sums = ops.grid_aggregate(adjacency, embeddings, sketches)
    (back,) = torch.autograd.grad(sums, embeddings, gradient)
    of_boxes = ops.grid_adjacency(boxes, sketches)
    return {"boxes": boxes, "adjacency": adjacency, "of boxes": of_boxes, "sums": sums.detach(), "back": back}


def kernels(setting: Setting) -> Facts:
    """Compare the grid operators, which are Triton kernels on CUDA, with the CPU's."""
    shapes = [[3, 1, 0, 5, 2], [1], [35, 0, 2]] + ([] if setting.is_tiny else [[3, 1000], [7] * 1024])
    worst: Facts = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        for num_nodes in shapes:
            found = _grid_operations(num_nodes, setting.device, dtype)
            # Both devices get the same inputs, rounded to the dtype.
            right = _grid_operations(num_nodes, torch.device("cpu"), dtype)
            for name, tensor in found.items():
                error = relative_error(tensor, right[name])
                key = f"{name}, {str(dtype).removeprefix('torch.')}"
                worst[key] = max(worst.get(key, 0.0), error)
                exact = name in ("boxes", "adjacency", "of boxes")
                require(error <= (0 if exact else _ROUNDING[dtype]), f"{key}: error {error:.2g} for {num_nodes[:5]}")
    return worst


def gradients(setting: Setting) -> Facts:
    """Compare the loss and gradients of every cell with the CPU's in float64.

    The modes are training, training in micro-batches, training without dropout, and evaluation.
    """
    worst: Facts = {}
    dtypes = [torch.float32] if setting.is_tiny else list(_GRADIENT_ROUNDING)
    for encoder, decoder, graph in _MODELS:
        for name, is_training, keep, num_parts in (
            ("training", True, 0.9, 1),
            ("training in parts", True, 0.9, 3),
            ("training without dropout", True, 1.0, 1),
            ("evaluation", False, 0.9, 1),
        ):
            config = small_model(encoder, decoder, keep, graph)
            right = all_gradients(config, torch.device("cpu"), torch.float64, is_training)
            for dtype in dtypes:
                found = all_gradients(config, setting.device, dtype, is_training, num_parts)
                error = max(map(relative_error, found, right))
                key = f"{encoder}, {decoder}, {name}, {str(dtype).removeprefix('torch.')}"
                worst[key] = error
                require(error < _GRADIENT_ROUNDING[dtype], f"{key}: error {error:.2g}")
    return worst


def _product_errors(device: torch.device, size: int) -> Facts:
    """Return the float32 errors of a matrix product, an LSTM and a convolutional network, against the CPU's float64."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, size, size, generator=generator)
    product = left.to(device) @ right.to(device)
    found: Facts = {"product": relative_error(product, left.double() @ right.double())}
    model = make_model(small_model(size=32)).eval()
    codes = model.double().encode(small_batch(torch.float64)).mean
    sketches = small_batch(torch.float32).to(device=device)
    found["LSTM"] = relative_error(model.float().to(device).encode(sketches).mean, codes)
    torch.manual_seed(0)
    network = SketchANet(5, width=4).eval()
    images = (torch.rand(2, 225, 225, generator=generator) * 255).to(torch.uint8)
    right = network.double().logits(images)
    found["convolutions"] = relative_error(network.float().to(device).logits(images.to(device)), right)
    return found


@torch.no_grad()
def float32(setting: Setting) -> Facts:
    """Check that float32 stays float32 although the environment requests TF32, and that `train.tf32` enables TF32."""
    require(os.environ.get("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE") == "1", "the environment does not request TF32")
    size = 64 if setting.is_tiny else 1024
    with float32_products(setting.device):
        errors = _product_errors(setting.device, size)
    for name, error in errors.items():
        require(error < _TF32_ERROR, f"{name}: error {error:.2g}, as large as with TF32")
    found: Facts = {f"{name}, float32": error for name, error in errors.items()}
    if setting.is_cuda and torch.cuda.get_device_capability(setting.device) >= (8, 0):
        with float32_products(setting.device, tf32=True):
            errors = _product_errors(setting.device, size)
        found |= {f"{name}, TF32": error for name, error in errors.items()}
        require(errors["product"] > _TF32_ERROR, "train.tf32 has no effect: the products are as exact as in float32")
    return found


@torch.no_grad()
def lstm(setting: Setting) -> Facts:
    """Check that cuDNN accepts the LSTM's weights without the warning that they are not in one chunk of memory."""
    setting.need_cuda()
    model = make_model(small_model(size=64)).to(setting.device).eval()
    sketches = small_batch(torch.float32).to(device=setting.device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.encode(sketches)
    said = [str(warning.message) for warning in caught]
    require(not any(_SCATTERED in text for text in said), "torch warns that the weights are not in one chunk of memory")
    # Prove that the check can fail: scattered weights must still warn.
    library: Any = torch.nn.LSTM(3, 8).to(setting.device)
    library.weight_ih_l0 = torch.nn.Parameter(library.weight_ih_l0.clone())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        library(torch.zeros(2, 1, 3, device=setting.device))
    warned = any(_SCATTERED in str(warning.message) for warning in caught)
    require(warned, "torch no longer warns of scattered weights, so this check proves nothing")
    return {"other warnings": said, "cuDNN": torch.backends.cudnn.version()}


def retrieval(setting: Setting) -> Facts:
    """Check that retrieval ranks equal the CPU's exactly, even for codes that float32 barely distinguishes."""
    count, width = (200, 8) if setting.is_tiny else (20_000, 128)
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randn(count, width, generator=generator)
    close = torch.full((count // 4, width), 30.0)
    close[:, 0] += torch.arange(count // 4) * 2e-5
    gallery[: count // 4] = close
    queries, own = gallery + 0.9e-5, torch.arange(count)
    queries[count // 2 :] += torch.randn(count - count // 2, width, generator=generator)
    expected = retrieval_ranks(queries, own, gallery)
    on_device = queries.to(setting.device), own.to(setting.device), gallery.to(setting.device)
    retrieval_ranks(*on_device)
    setting.synchronize()
    start = time.perf_counter()
    found = retrieval_ranks(*on_device)
    setting.synchronize()
    seconds = time.perf_counter() - start
    wrong = int((found.cpu() != expected).sum())
    require(wrong == 0, f"{wrong} of {count} ranks differ from the CPU's")
    return {"codes": count, "seconds": seconds}
