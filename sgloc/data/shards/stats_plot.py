"""Plot of drawing lengths and of drawings per category in a folder of shards."""

import io
from collections import Counter
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from sgloc.data.manifest import Manifest, Split

# Colours safe for colour-blind readers; the line styles distinguish the splits in black and white.
_STYLES = {"train": ("#0072b2", "-"), "valid": ("#d55e00", "--"), "test": ("#009e73", ":")}
_NUM_BINS = 48
_MOST_NAMES = 16
_TEXT_SIZE = 9


def plot_stats(manifest: Manifest) -> bytes:
    """Plot the distributions of points and strokes by split, and the counts by category; return a PNG.

    A bin's height is its number of drawings divided by its width in lengths, so that it does not depend on the binning.
    """
    splits = {name: split for name, split in manifest.splits.items() if split.num_sketches}
    figure = Figure(figsize=(11, 3.3), dpi=200, layout="constrained")
    points, strokes, categories = figure.subplots(1, 3)
    _plot_lengths(points, {name: split.points for name, split in splits.items()})
    points.set(xlabel="points per drawing", ylabel="drawings of each length")
    _plot_lengths(strokes, {name: split.strokes for name, split in splits.items()})
    strokes.set(xlabel="strokes per drawing")
    _plot_categories(categories, splits)
    for axes in (points, strokes, categories):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=_TEXT_SIZE - 1)
        axes.xaxis.label.set_size(_TEXT_SIZE)
        axes.yaxis.label.set_size(_TEXT_SIZE)
    points.legend(frameon=False, fontsize=_TEXT_SIZE - 1)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plot_lengths(axes: Axes, histograms: Mapping[str, Mapping[int, int]]) -> None:
    """Plot the number of drawings of each length, from 1 to the longest."""
    longest = max(max(histogram) for histogram in histograms.values())
    # Integer bin edges, so that each of the shorter lengths has its own bin.
    edges = np.unique(np.rint(np.geomspace(1, longest + 1, _NUM_BINS)).astype(np.int64))
    lowest = 1.0
    for name, histogram in histograms.items():
        color, line = _STYLES[name]
        heights = np.histogram(list(histogram), bins=edges, weights=list(histogram.values()))[0] / np.diff(edges)
        lowest = min(lowest, heights[heights > 0].min())
        axes.stairs(heights, edges, color=color, linestyle=line, linewidth=1.3, label=name)
    axes.set(xscale="log", yscale="log", xlim=(1, longest + 1))
    # Without this limit, empty bins would extend the logarithmic axis towards zero.
    axes.set_ylim(bottom=lowest / 2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _plot_categories(axes: Axes, splits: Mapping[str, Split]) -> None:
    """Plot the counts of all categories, largest first: by name if there is room, else by rank within each split."""
    totals: Counter[str] = Counter()
    for split in splits.values():
        totals.update(split.categories)
    names = [name for name, _ in totals.most_common()]
    places, is_named = range(1, len(names) + 1), len(names) <= _MOST_NAMES
    for name, split in splits.items():
        color, line = _STYLES[name]
        # NaN, because a logarithmic axis cannot show zero.
        counts = [split.categories.get(category, 0) or np.nan for category in names]
        if is_named:
            axes.plot(places, counts, color=color, linestyle="none", marker="o", markersize=4)
        else:
            ranked = sorted(counts, key=np.nan_to_num, reverse=True)
            axes.plot(places, ranked, color=color, linestyle=line, linewidth=1.3)
    axes.set(yscale="log", ylabel="drawings per category")
    if is_named:
        axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xlabel(f"rank of the category (of {len(names)})")
