"""Differences between the supported torch releases, 2.9 and later; no other module depends on the release.

Functions test for the keyword argument they need rather than for a version number: builds of one release may differ,
and if torch removes a keyword one day, it fails here rather than in the middle of a run.
"""

import contextlib
import datetime
import functools
import inspect
import os
import signal
from collections.abc import Callable, Iterator
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

_Inputs = ParamSpec("_Inputs")
_Output = TypeVar("_Output")


def compile_whole(
    function: Callable[_Inputs, _Output], backend: str | Callable[..., object], most_graphs: int
) -> Callable[_Inputs, _Output]:
    """Compile a function as one graph without breaks, separately for each combination of input shapes.

    Args:
        function: a plain function without a closure; compiled on its first call.
        backend: as for torch.compile.
        most_graphs: number of shapes to compile before torch raises an error; counted for the returned function only,
            however often the same function is compiled elsewhere.
    """
    options: dict[str, Any] = {"fullgraph": True, "dynamic": False, "backend": backend}
    if _takes(torch.compile, "isolate_recompiles"):
        # torch 2.13 and later.
        options |= {"recompile_limit": most_graphs, "isolate_recompiles": True}
    else:
        # torch 2.9 to 2.11 have one process-wide limit and count graphs per code object, so use a copy of the function.
        settings = torch._dynamo.config
        settings.recompile_limit = max(settings.recompile_limit, most_graphs)
        function = _copy(function)
    return torch.compile(function, **options)


def replicate(model: nn.Module) -> DistributedDataParallel:
    """Wrap a model in DDP without buffer synchronisation; all ranks must start with the same weights and buffers.

    Gradients are views of DDP's all-reduce buckets.
    """
    # torch 2.13 and later deprecate the older name. With the older name, buffers are not sent at the start either.
    name = "forward_sync_buffers" if _takes(DistributedDataParallel, "forward_sync_buffers") else "broadcast_buffers"
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **options)


def set_timeout(group: dist.ProcessGroup, seconds: float) -> None:
    """Set the timeout of a process group's collectives, in seconds."""
    timeout = datetime.timedelta(seconds=seconds)
    public: Any = getattr(dist, "set_timeout", None)
    if public is not None:
        # torch 2.14 and later, which deprecate the older name.
        public(timeout, group)
    else:
        dist.distributed_c10d._set_pg_timeout(timeout, group)


def launch_config(**options: Any) -> "LaunchConfig":
    """Configure torchrun's launcher, which leaves the handlers of this process for every signal but QUIT in place.

    Args:
        options: as for LaunchConfig.
    """
    from torch.distributed.elastic.multiprocessing import api
    from torch.distributed.launcher.api import LaunchConfig

    if _takes(LaunchConfig, "signals_to_handle"):
        return LaunchConfig(signals_to_handle="SIGQUIT", **options)
    # torch 2.9 takes TERM, INT and HUP whenever it starts ranks.
    own: Any = SimpleNamespace(**vars(signal))
    own.signal = lambda number, handler: signal.signal(number, handler) if number == signal.SIGQUIT else None
    api.signal = own
    return LaunchConfig(**options)


@contextlib.contextmanager
def silent_gloo() -> Iterator[None]:
    """Keep gloo from writing to standard output, which is for results, while process groups are created inside.

    In torch 2.9 gloo prints the number of connected ranks there; in 2.11 and later it does not.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 11):
        yield
        return
    try:
        output = os.dup(1)
    except OSError:
        # Standard output is closed.
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(output, 1)
        os.close(output)
        os.close(nowhere)


def _copy(function: Callable[_Inputs, _Output]) -> Callable[_Inputs, _Output]:
    assert isinstance(function, FunctionType)
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__)
    return functools.update_wrapper(own, function)


def _takes(function: Callable[..., Any], keyword: str) -> bool:
    return keyword in inspect.signature(function).parameters
