"""Plot of an epoch's balance over the ranks, and of the distances between neighbours."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from sgloc.bench.report import Record

# Distinguishable with any colour vision; line styles distinguish them in print.
_BLUE, _RED, _GREY = "#0072b2", "#d55e00", "#555555"
_TEXT_SIZE = 9
_AIM = 1.1
_BINS_PER_DECADE = 10
_LARGEST_BATCH = 6400
# Distances below this are too rare to be visible.
_NEAREST = 100


def plot_order(balance: Sequence[Record], positions: npt.NDArray[np.int32]) -> bytes:
    """Plot what the ranks read, and the distances of neighbours next to those after a perfect shuffle.

    Args:
        balance: balance of the epoch for each number of ranks, ascending.
        positions: int32 [N], position of each sketch in the epoch, N >= 2.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(8.6, 3.3), dpi=200, layout="constrained")
    left, right = figure.subplots(1, 2)
    _plot_balance(left, balance)
    _plot_distances(right, positions)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=_TEXT_SIZE - 1)
        axes.xaxis.label.set_size(_TEXT_SIZE)
        axes.yaxis.label.set_size(_TEXT_SIZE)
        axes.legend(edgecolor="none", framealpha=1, fontsize=_TEXT_SIZE - 1, loc="upper left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plot_balance(axes: Axes, balance: Sequence[Record]) -> None:
    """Plot the minimum, mean and maximum bytes per rank over the number of ranks."""
    columns = {name: [row[name] for row in balance] for name in balance[0]}
    ranks = columns["world_size"]
    style: dict[str, Any] = {"linewidth": 1.3, "marker": "o", "markersize": 3}
    least, most = columns["least_bytes"], columns["most_bytes"]
    axes.fill_between(ranks, least, most, color=_BLUE, alpha=0.18, linewidth=0, label="ranks, least to most")
    axes.plot(ranks, columns["all_bytes"], color=_BLUE, label="mean of the ranks", **style)
    worst = columns["most_read_for_used"]
    axes.plot(ranks, worst, color=_RED, linestyle="--", label="bytes read per byte used, most", **style)
    axes.axhline(_AIM, color=_GREY, linewidth=0.9, linestyle=":", label=f"target: {_AIM}")
    axes.set_xscale("log", base=2)
    powers = [size for size in ranks if size & (size - 1) == 0]
    axes.set_xticks(powers, [str(size) for size in powers])
    axes.xaxis.set_minor_locator(NullLocator())
    # Leave room for the legend above the lines.
    axes.set_ylim(min(*least, 0.9) - 0.05, max(*most, *worst, 1.2) * 1.25)
    axes.set(xlabel="ranks W", ylabel="bytes a rank reads, as a multiple of 1/W of all")


def _plot_distances(axes: Axes, positions: npt.NDArray[np.int32]) -> None:
    """Plot the distribution of neighbours' distances; on the logarithmic axis equal areas are equal shares."""
    total = len(positions)
    # Integer bin edges, so that every bin contains a possible distance; a bin's height is divided by its width.
    edges = np.unique(np.rint(np.geomspace(1, total, 1 + round(_BINS_PER_DECADE * np.log10(total)))))
    decades = np.diff(np.log10(edges))
    counts, _ = np.histogram(np.abs(np.diff(positions)), edges)
    # The distance of two uniform random numbers is below x with probability 2 x - x ** 2.
    below = 2 * edges / total - (edges / total) ** 2
    here, perfect = counts / (total - 1) / decades, np.diff(below) / decades
    axes.stairs(here, edges, fill=True, color=_BLUE, alpha=0.3)
    axes.stairs(here, edges, color=_BLUE, linewidth=1.3, label="here")
    axes.stairs(perfect, edges, color=_RED, linestyle="--", linewidth=1.3, label="perfect shuffle")
    if total > _LARGEST_BATCH:
        label = f"global batch of {_LARGEST_BATCH:,}"
        axes.axvline(_LARGEST_BATCH, ymax=0.75, color=_GREY, linewidth=0.9, linestyle=":", label=label)
    axes.set(xscale="log", xlim=(min(_NEAREST, total / 2), total), xlabel="positions between neighbours in the source")
    axes.set_ylim(0, 1.35 * max(here.max(), perfect.max()))
    axes.set_ylabel("share of the neighbours per decade")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.1f}"))
