"""The Triton kernels without a GPU: values from the interpreter, and compilation for two GPU generations."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton import JITFunction
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sgloc.ops import node_boxes, triton_kernels, triton_launch
from tests.ops.reference import SHAPES, make_points, make_rows
from tests.patience import PATIENCE

# Bytes of shared memory that a block may use on every GPU from sm_80 on.
MOST_SHARED_MEMORY = 99 * 1024
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
POINTER_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int16: "*i16",
}


@dataclass(frozen=True)
class Launch:
    """A kernel and the arguments of a launch."""

    kernel: JITFunction[Any]
    arguments: tuple[torch.Tensor | int, ...]
    constants: dict[str, int]

    def compile(self, capability: int) -> Any:
        """Compile the kernel ahead of time as this launch would have compiled it."""
        types = [
            POINTER_TYPES[argument.dtype] if isinstance(argument, torch.Tensor) else "i32"
            for argument in self.arguments
        ]
        signature = dict(zip(self.kernel.arg_names, types, strict=False)) | dict.fromkeys(self.constants, "constexpr")
        assert list(signature) == self.kernel.arg_names
        # PyTorch allocations are 16-byte aligned, and Triton exploits this.
        aligned = {
            (place,): [["tt.divisibility", 16]]
            for place, argument in enumerate(self.arguments)
            if isinstance(argument, torch.Tensor)
        }
        source = ASTSource(self.kernel, signature, self.constants, aligned)
        return triton.compile(source, target=GPUTarget("cuda", capability, 32))


def launches(dtype: torch.dtype) -> list[Launch]:
    """Record every kernel launch of the launchers for tensors of a dtype."""
    found: list[Launch] = []

    class Recorder:
        def __init__(self, kernel: JITFunction[Any]) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *arguments, **constants: found.append(Launch(self.kernel, arguments, constants))

    points, node_offsets, sketch_offsets = make_points(SHAPES["beyond a tile"], dtype)
    boxes = node_boxes(points, node_offsets)
    embeddings = make_rows(len(node_offsets) - 1, 1024, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        for name, kernel in jit_functions().items():
            patch.setattr(triton_kernels, name, Recorder(kernel))
        adjacency = triton_launch.grid_adjacency(boxes, sketch_offsets)
        sums = triton_launch.grid_aggregate(embeddings, adjacency, sketch_offsets, False)
        triton_launch.grid_aggregate(sums, adjacency, sketch_offsets, True)
    return found


def jit_functions() -> dict[str, JITFunction[Any]]:
    return {name: value for name, value in vars(triton_kernels).items() if isinstance(value, JITFunction)}


LAUNCHES = [launch for dtype in DTYPES for launch in launches(dtype)]


def name_of(launch: Launch) -> str:
    rows, is_transposed = launch.arguments[1], launch.constants.get("transposed", False)
    assert isinstance(rows, torch.Tensor)
    name = launch.kernel.__name__ + ("-transposed" if is_transposed else "")
    return f"{name}-{str(rows.dtype).removeprefix('torch.')}"


def resource_usage(cubin: Path) -> dict[str, int]:
    """Return the resource usage of a cubin: per thread (REG, STACK, LOCAL) and per block (SHARED)."""
    output = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, "-res-usage", cubin],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stdout
    return {name: int(number) for name, number in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", output)}


@pytest.fixture
def _fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    # This is the default; setting it explicitly avoids a warning from Triton.
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_cache")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("launch", LAUNCHES, ids=name_of)
def test_every_kernel_compiles_ahead_of_time_without_spilling(launch: Launch, capability: int, tmp_path: Path) -> None:
    compiled = launch.compile(capability)
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    usage = resource_usage(cubin)
    spilled = usage["STACK"] + usage["LOCAL"]
    print(
        f"{name_of(launch)} sm_{capability}: {usage['REG']} registers and {spilled} spilled bytes per thread, "
        f"{compiled.metadata.shared} bytes of shared memory per block of {32 * compiled.metadata.num_warps} threads"
    )
    assert 0 < usage["REG"] < 255
    assert spilled == 0
    assert compiled.metadata.shared + usage["SHARED"] <= MOST_SHARED_MEMORY


def test_every_kernel_is_among_the_compiled_ones() -> None:
    functions = jit_functions()
    called = {name for function in functions.values() for name in function.fn.__code__.co_names}
    kernels = functions.keys() - called
    assert kernels
    for dtype in DTYPES:
        assert {launch.kernel.__name__ for launch in LAUNCHES if name_of(launch).endswith(str(dtype)[6:])} == kernels


@pytest.mark.slow
def test_kernels_agree_with_the_loops_in_the_interpreter() -> None:
    path = Path(__file__).with_name("interpreted.py")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert run.returncode == 0, run.stdout + run.stderr
