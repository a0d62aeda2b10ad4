"""Checks that measure: the cost of a step, its waits for the device, and the gain from compiling."""

import collections
import time
import warnings
from pathlib import Path
from typing import Literal

import torch

from benchmarks.gpu_checks import Facts, Setting, require
from benchmarks.gpu_checks.models import are_close, opened, take_steps, training_config
from sgloc.bench.options import StepOptions
from sgloc.bench.report import machine as describe_machine
from sgloc.bench.run import bench
from sgloc.models.sketchgloc.network import SketchGloc


def machine(setting: Setting) -> Facts:
    """Report the hardware and library versions."""
    found: Facts = {name: value for name, value in describe_machine(setting.device).items() if name != "threads"}
    if setting.is_cuda:
        properties = torch.cuda.get_device_properties(setting.device)
        found |= {
            "GPUs": torch.cuda.device_count(),
            "capability": f"{properties.major}.{properties.minor}",
            "memory GiB": round(properties.total_memory / 2**30, 1),
            "CUDA": torch.version.cuda,
            "cuDNN": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        }
    try:
        import triton
    except ImportError:
        require(not setting.is_cuda, "Triton is not installed; without it the grid operators are slow")
        return found
    return found | {"triton": triton.__version__}


def step(setting: Setting) -> Facts:
    """Measure a training step at the published sizes: time, memory, and share of the matrix-product ceiling."""
    sizes = [(4, "float32")] if setting.is_tiny else [(100, "float32"), (100, "bfloat16"), (1024, "float32")]
    found: Facts = {}
    for size, precision in sizes:
        config = training_config(setting, size, precision=precision)
        repeats, long_sketch, ceiling = (1, 50, 64) if setting.is_tiny else (5, 1000, 4096)
        kind: Literal["cpu", "cuda"] = "cuda" if setting.is_cuda else "cpu"
        options = StepOptions(size, repeats, kind, long_sketch=long_sketch, ceiling_size=ceiling)
        for record in bench("step", options, config).records():
            if record["name"] in ("step", "step with a long sketch"):
                found[f"{size}, {precision}, {record['name']}"] = {
                    "ms": round(1e3 * record["seconds"]["median"], 2),
                    "sketches/s": round(record["sketches_per_second"], 1),
                    "of ceiling": round(record["ceiling_share"], 3),
                    "peak MiB": round(record["peak_memory_mib"]),
                }
        if setting.is_cuda:
            torch.cuda.reset_peak_memory_stats()
    return found


def waits(setting: Setting) -> Facts:
    """Count the kernels of a step and their time on the device, and find where the host waits for the device."""
    setting.need_cuda()
    from torch.profiler import ProfilerActivity, profile

    with opened(setting, training_config(setting, 100)) as (engine, batch):
        take_steps(engine, batch, 2)
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            start = time.perf_counter()
            engine.backward(batch)
            engine.update(1e-3)
            setting.synchronize()
            elapsed = time.perf_counter() - start
        on_device = [event for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        table = profiled.key_averages().table(sort_by="self_cuda_time_total", row_limit=40)
        (setting.folder / "kernels.txt").write_text(table)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            engine.backward(batch)
            engine.update(1e-3)
        torch.cuda.set_sync_debug_mode("default")
    places = collections.Counter(
        f"{Path(warning.filename).name}:{warning.lineno}" for warning in caught if "synchroniz" in str(warning.message)
    )
    return {
        "kernels": len(on_device),
        "busy ms": round(sum(event.device_time for event in on_device) / 1e3, 2),
        "step ms": round(1e3 * elapsed, 2),
        "waits": places.total(),
        "places": dict(places.most_common()),
    }


def compiled(setting: Setting) -> Facts:
    """Check that compiled steps give the same losses as plain ones, and time both."""
    size, repeats = (4, 1) if setting.is_tiny else (100, 5)
    found: Facts = {}
    losses = []
    for is_compiled in (False, True):
        config = training_config(setting, size, compile=is_compiled and not setting.is_tiny)
        with opened(setting, config) as (engine, batch):
            if is_compiled and setting.is_tiny:
                # Take the same path through the program without needing a C++ compiler.
                assert isinstance(engine.model, SketchGloc)
                engine.model.compile_steps("eager")
            start = time.perf_counter()
            losses.append(take_steps(engine, batch, 2))
            name = "compiled" if is_compiled else "plain"
            found[f"{name}, first two steps s"] = round(time.perf_counter() - start, 2)
            start = time.perf_counter()
            take_steps(engine, batch, repeats)
            setting.synchronize()
            found[f"{name} ms"] = round(1e3 * (time.perf_counter() - start) / repeats, 2)
    require(are_close(losses[1], losses[0], 1e-4), f"the compiled losses are {losses[1]}, the plain ones {losses[0]}")
    return found | {"losses": losses[1]}
