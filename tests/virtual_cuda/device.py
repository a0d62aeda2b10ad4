"""Virtual CUDA devices for a build of torch without CUDA.

    with virtual_cuda():
        torch.ones(3, device="cuda")

Every operation is computed in host memory, but torch takes its tensors for CUDA's: the backward pass runs in a thread
of its own a device, autocast uses CUDA's lists, and what CUDA or its libraries refuse is refused: operands on several
devices, host memory in a collective of nccl's, cuDNN's backward pass of an LSTM that does not train. Float32 products
are computed in TF32 where torch's switches allow it.

Not executed: Triton, cuBLAS, cuDNN, nccl and what torch.compile makes for CUDA. DistributedDataParallel's reducer works
on memory that a virtual tensor does not have; `Replica` stands in for it.

This module must be imported before torch is, in a process whose environment names the library in VIRTUAL_CUDA, as
`tests.virtual_cuda.build` says.
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
    raise ImportError("torch has asked for a CUDA device before; import tests.virtual_cuda.device first")

_MEMORY = 2**34
_real_is_compatible = torch._has_compatible_shallow_copy_type


def _index(device: Any) -> int:
    return device if isinstance(device, int) else placed(device).index  # type: ignore[union-attr]


class _Event:
    """A mark in a stream that does everything at once."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.time = 0.0

    def record(self, *_: Any) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: "_Event") -> float:
        return 1000 * (later.time - self.time)


def _tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any) -> Tensor:
    """`torch.tensor`, which copies to a device below the level at which a mode is asked."""
    made = real_tensor(data, dtype=dtype)
    if device is not None:
        made = made.to(device)
    return made.requires_grad_(requires_grad) if requires_grad else made


def _is_compatible(ours: Tensor, theirs: Tensor) -> bool:
    """Whether a module may put one tensor's contents into the other: not when it moves to a device."""
    return isinstance(ours, VirtualTensor) == isinstance(theirs, VirtualTensor) and _real_is_compatible(ours, theirs)


class Replica(nn.Module):
    """In place of DistributedDataParallel: means of the gradients over the ranks."""

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
        """As the module's own."""
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
    """Inside, torch finds two CUDA devices."""
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
