"""Process groups on virtual devices: gloo does the work, under the rules of the requested backend."""

from typing import Any

import torch
import torch.distributed as dist

from tests.virtual_cuda.tensors import current_device

_c10d: Any = dist.distributed_c10d
_real_init, _real_new_group, _real_get_backend = dist.init_process_group, dist.new_group, dist.get_backend
_real_object_device, _real_default_device = _c10d._get_object_coll_device, _c10d._get_pg_default_device
# Names of the groups that were requested as nccl.
_nccl: set[str] = set()


def _is_nccl(group: Any) -> bool:
    found: Any = group or dist.group.WORLD
    return found.group_name in _nccl


def backend_of(boxed: Any) -> str | None:
    """Return the requested backend of a collective's group operand; None if the operand is not a group."""
    if not isinstance(boxed, torch.ScriptObject):
        return None
    try:
        name = dist.ProcessGroup.unbox(boxed).group_name
    except (RuntimeError, TypeError):
        return None
    return "nccl" if name in _nccl else "gloo"


def _remember(group: Any, backend: str | None) -> None:
    """Record a group's requested backend; also for gloo, because names are reused after a group is destroyed."""
    (_nccl.add if backend == "nccl" else _nccl.discard)(group.group_name)


def _init(backend: str | None = None, *args: Any, **options: Any) -> None:
    _real_init("gloo" if backend == "nccl" else backend, *args, **options)
    _remember(dist.group.WORLD, backend)


def _new_group(*args: Any, **options: Any) -> Any:
    wanted = options.get("backend") or ("nccl" if _is_nccl(None) else "gloo")
    group: Any = _real_new_group(*args, **{**options, "backend": "gloo"})
    _remember(group, wanted)
    return group


def _get_backend(group: Any = None) -> str:
    return "nccl" if _is_nccl(group) else _real_get_backend(group)


def _object_device(group: Any = None) -> str:
    return "cuda" if _is_nccl(group) else _real_object_device(group)


def _default_device(group: Any = None) -> torch.device:
    return current_device() if _is_nccl(group) else _real_default_device(group)


# Module, function name and replacement.
STAND_INS: tuple[tuple[Any, str, Any], ...] = (
    (dist, "init_process_group", _init),
    (dist, "new_group", _new_group),
    (dist, "get_backend", _get_backend),
    (_c10d, "_get_object_coll_device", _object_device),
    (_c10d, "_get_pg_default_device", _default_device),
)
