"""`sgloc bench`: choose what to measure."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sgloc.bench.checkpoint import bench_checkpoint
from sgloc.bench.generate import bench_generate
from sgloc.bench.ops import bench_ops
from sgloc.bench.options import BenchOptions, What
from sgloc.bench.order import bench_order
from sgloc.bench.parity import bench_parity
from sgloc.bench.report import Report
from sgloc.bench.resume import bench_resume
from sgloc.bench.retrieval import bench_retrieval
from sgloc.bench.scale import bench_scale
from sgloc.bench.scaling import bench_scaling
from sgloc.bench.step import bench_step
from sgloc.bench.stream import bench_stream
from sgloc.bench.tables import TableReport
from sgloc.config import Config
from sgloc.tf32 import float32_products

_BENCHES: Mapping[What, Callable[[BenchOptions, Config], Report | TableReport]] = MappingProxyType(
    {
        "ops": bench_ops,
        "stream": bench_stream,
        "step": bench_step,
        "generate": bench_generate,
        "checkpoint": bench_checkpoint,
        "order": bench_order,
        "scale": bench_scale,
        "scaling": bench_scaling,
        "parity": bench_parity,
        "resume": bench_resume,
        "retrieval": bench_retrieval,
    }
)


def bench(options: BenchOptions, config: Config) -> Report | TableReport:
    """Measure.

    Args:
        options: what, and on what.
        config: of the training run that it is to be measured for.

    Raises:
        SglocError: if the shards or the device cannot be used.
    """
    with float32_products(options.device, config.train.tf32):
        return _BENCHES[options.what](options, config)
