"""Virtual CUDA devices for PyTorch builds without CUDA.

    with virtual_cuda():
        torch.ones(3, device="cuda")

Every operation is computed in host memory, but PyTorch treats the tensors as CUDA tensors: the backward pass runs in a
separate thread for each device, autocast uses the CUDA lists, and operations that CUDA or its libraries reject raise an
error: operands on several devices, host memory in an NCCL collective, cuDNN's backward pass of an LSTM in evaluation
mode. Float32 products are computed in TF32 if PyTorch's switches allow it.

Triton, cuBLAS, cuDNN, NCCL and torch.compile's CUDA code are not executed. DistributedDataParallel's reducer needs
memory that a virtual tensor does not have; `Replica` replaces it.

Import this module before torch, in a process whose environment variable VIRTUAL_CUDA is the path of the library that
`tests.virtual_cuda.build` compiles.
"""

import contextlib
import ctypes
import os
import time
import types
from collections.abc import Iterator
from typing import Any

_library = ctypes.CDLL(os.environ["VIRTUAL_CUDA"], mode=ctypes.RTLD_GLOBAL)

import torch  # noqa: E402
import torch._dynamo  # noqa: E402
import torch.cuda.nccl  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.virtual_cuda import cudnn, groups  # noqa: E402
from tests.virtual_cuda.tensors import VirtualMode, VirtualTensor, placed, real_tensor  # noqa: E402

_NUM_DEVICES = 2
if not _library.virtual_cuda_install(_NUM_DEVICES):
    raise ImportError("torch has already looked for a CUDA device; import tests.virtual_cuda.device first")

_MEMORY = 2**34
_real_is_compatible = torch._has_compatible_shallow_copy_type


def _index(device: Any) -> int:
    return device if isinstance(device, int) else placed(device).index  # type: ignore[union-attr]


class _Event:
    """An event in a stream that executes everything synchronously."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.time = 0.0

    def record(self, *_: Any) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: "_Event") -> float:
        return 1000 * (later.time - self.time)


def _tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any) -> Tensor:
    """Replace `torch.tensor`, whose copy to a device bypasses dispatch modes."""
    made = real_tensor(data, dtype=dtype)
    if device is not None:
        made = made.to(device)
    return made.requires_grad_(requires_grad) if requires_grad else made


def _is_compatible(ours: Tensor, theirs: Tensor) -> bool:
    """Return whether a module may swap one tensor's data in place: not if it moves to or from a virtual device."""
    return isinstance(ours, VirtualTensor) == isinstance(theirs, VirtualTensor) and _real_is_compatible(ours, theirs)


class Replica(nn.Module):
    """A replacement for DistributedDataParallel that averages gradients over the ranks."""

    def __init__(self, module: nn.Module, **_: Any) -> None:
        super().__init__()
        self.module = module
        for parameter in module.parameters():
            parameter.register_post_accumulate_grad_hook(self._average)

    @staticmethod
    def _average(parameter: Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None
        dist.all_reduce(gradient)
        gradient.div_(dist.get_world_size())

    def forward(self, *args: Any, **options: Any) -> Any:
        """Call the module."""
        return self.module(*args, **options)


_CUDA: dict[str, Any] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "_lazy_init": lambda: None,
    "device_count": lambda: _NUM_DEVICES,
    "current_device": lambda: int(_library.virtual_cuda_get_device()),
    "set_device": lambda device: _library.virtual_cuda_set_device(_index(device)),
    "device_of": lambda tensor: contextlib.nullcontext(),
    "current_stream": lambda *_: None,
    "is_current_stream_capturing": lambda: False,
    "synchronize": lambda *_: None,
    "empty_cache": lambda: None,
    "Event": _Event,
    "is_bf16_supported": lambda *_: True,
    "get_device_name": lambda *_: "virtual",
    "get_device_capability": lambda *_: (8, 0),
    "get_device_properties": lambda device: types.SimpleNamespace(
        uuid=f"virtual-{_index(device)}", name="virtual", major=8, minor=0, total_memory=_MEMORY
    ),
    "max_memory_allocated": lambda *_: 0,
    "mem_get_info": lambda *_: (_MEMORY, _MEMORY),
}


@contextlib.contextmanager
def virtual_cuda() -> Iterator[None]:
    """Make PyTorch see two CUDA devices inside the context."""
    stand_ins = [
        *((torch.cuda, name, value) for name, value in _CUDA.items()),
        (torch.cuda.nccl, "version", lambda: (2, 27, 3)),
        (torch, "lstm", cudnn.lstm),
        (torch, "tensor", _tensor),
        (torch, "_has_compatible_shallow_copy_type", _is_compatible),
        *groups.STAND_INS,
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, value in stand_ins:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        stack.enter_context(VirtualMode())  # type: ignore[no-untyped-call]
        yield
