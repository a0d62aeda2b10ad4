"""Tensors on a virtual CUDA device: PyTorch treats them as CUDA tensors, but their data are in host memory.

Every operation is really computed, on the host, after checking that CUDA would accept its operands.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from tests.virtual_cuda.tf32 import rounded_operands

# Operations that accept a CPU scalar among CUDA tensors although PyTorch does not tag them as pointwise.
_TAKES_SCALARS = frozenset(
    {"fill", "fill_", "where", "masked_fill", "masked_fill_", "index_fill", "index_fill_", "index_put", "index_put_"}
)
# Operations that accept index tensors on the CPU.
_TAKES_INDICES = frozenset({"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"})

real_tensor = torch.tensor


def current_device() -> torch.device:
    """Return the device that "cuda" without an index refers to."""
    return torch.device("cuda", torch.cuda.current_device())


def placed(device: object) -> torch.device | None:
    """Return the device with an explicit index; None for None."""
    if device is None:
        return None
    found = torch.device(device)  # type: ignore[call-overload]
    return current_device() if found.type == "cuda" and found.index is None else found


class VirtualTensor(Tensor):
    """A tensor on a virtual device.

    Attributes:
        host: The data, in host memory.
    """

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, host: Tensor, device: torch.device) -> "VirtualTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=device,
        )
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        # Reached if no mode is active, for example after leaving the virtual device's context.
        return run(function, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"VirtualTensor({self.host!r}, device={self.device})"

    def __deepcopy__(self, memo: Any) -> "VirtualTensor":
        return VirtualTensor(self.host.clone(), self.device)

    # PyTorch implements these methods below the dispatcher.

    def tolist(self) -> Any:
        """See `Tensor.tolist`."""
        detached: Any = self.detach()
        return detached.host.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        """See `Tensor.numpy`, which CUDA tensors refuse."""
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def data_ptr(self) -> int:
        """See `Tensor.data_ptr`."""
        return self.host.data_ptr()

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        moved = tuple(real_tensor(part).to(self.device) if isinstance(part, list) else part for part in parts)
        return super().__getitem__(moved if isinstance(index, tuple) else moved[0])

    def new_tensor(self, data: Any, dtype: Any = None, device: Any = None, *_: Any, **options: Any) -> Tensor:
        """See `Tensor.new_tensor`."""
        made = real_tensor(data, dtype=dtype or self.dtype).to(device or self.device)
        return made.requires_grad_(options.get("requires_grad", False))


class VirtualMode(TorchDispatchMode):
    """A dispatch mode in which operations may create and take tensors on virtual devices."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `TorchDispatchMode`."""
        return run(function, args, kwargs or {})


def on_host(value: Any) -> Any:
    """Return a virtual tensor's host data, the CPU for a virtual device, or any other value unchanged."""
    if isinstance(value, VirtualTensor):
        return value.host
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return value


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute a PyTorch operation if CUDA would accept its operands."""
    name = function._schema.name.partition("::")[2]
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    if function.namespace == "c10d":
        return _collective(function, args, kwargs, tensors)
    if name == "copy_":
        # Copies between any two devices are allowed.
        on_host(args[0]).copy_(on_host(args[1]))
        return args[0]
    device = placed(kwargs.get("device"))
    if device is not None:
        return _to_device(function, args, kwargs, device)
    ours = [tensor for tensor in tensors if isinstance(tensor, VirtualTensor)]
    if not ours:
        return function(*args, **kwargs)
    _refuse_mixed_devices(function, name, args, tensors)
    operands, options = tree_map(on_host, args), tree_map(on_host, kwargs)
    result = function(*rounded_operands(name, operands), **options)
    if name == "_local_scalar_dense":
        return result
    return tree_map(_wrapper(function, ours), result)


def _to_device(function: Any, args: Any, kwargs: dict[str, Any], device: torch.device) -> Any:
    """Run an operation with a `device` argument: it creates a new tensor or copies one."""
    there = device.type == "cuda"
    options = {**tree_map(on_host, kwargs), "device": torch.device("cpu") if there else device}
    given = tree_map(on_host, args)
    result = function(*given, **options)
    if not there:
        return result
    # A copy from one device to another must not share memory with its source.
    taken = any(result is value for value in given)
    return VirtualTensor(result.clone() if taken else result, device)


def _wrapper(function: Any, ours: list[VirtualTensor]) -> Callable[[Any], Any]:
    """Return a function that wraps an operation's results as virtual tensors and keeps in-place operands themselves."""
    writes = any(operand.alias_info and operand.alias_info.is_write for operand in function._schema.arguments)
    operands = {id(tensor.host): tensor for tensor in reversed(ours)} if writes else {}
    device = next((tensor.device for tensor in ours if tensor.dim() > 0), ours[0].device)

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, VirtualTensor):
            return value
        known = operands.get(id(value))
        if known is None:
            return VirtualTensor(value, device)
        if known.shape != value.shape:
            raise NotImplementedError(f"the virtual device cannot change a tensor's shape in place: {function}")
        return known

    return wrap


def _refuse_mixed_devices(function: Any, name: str, args: Any, tensors: list[Tensor]) -> None:
    """Raise CUDA's error for operands on several devices."""
    others = [tensor for tensor in tensors if not isinstance(tensor, VirtualTensor)]
    devices = {tensor.device for tensor in tensors if isinstance(tensor, VirtualTensor)}
    if len(devices) == 1:
        if name in _TAKES_INDICES and isinstance(args[0], VirtualTensor):
            values = args[2:3] if name != "index" else ()
            others = [value for value in values if isinstance(value, Tensor) and not isinstance(value, VirtualTensor)]
        takes_scalars = torch.Tag.pointwise in function.tags or name in _TAKES_SCALARS
        if takes_scalars:
            others = [tensor for tensor in others if tensor.dim() > 0]
        if not others:
            return
    found = ", ".join(sorted({str(tensor.device) for tensor in tensors}))
    shapes = [f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}" for tensor in tensors]
    raise RuntimeError(f"Expected all tensors to be on the same device, but found {found}: {function} of {shapes}")


def _collective(function: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
    """Run a collective over gloo, under the rules of the requested backend."""
    from tests.virtual_cuda.groups import backend_of

    backends = [found for value in args if (found := backend_of(value))]
    wanted = "cuda" if "nccl" in backends else "cpu"
    for tensor in tensors:
        if tensor.device.type != wanted:
            raise RuntimeError(f"No backend type associated with device type {tensor.device.type}: {function}")
    result = function(*tree_map(on_host, args), **tree_map(on_host, kwargs))
    back = {id(tensor.host): tensor for tensor in tensors if isinstance(tensor, VirtualTensor)}
    return tree_map(lambda value: back.get(id(value), value) if isinstance(value, Tensor) else value, result)
