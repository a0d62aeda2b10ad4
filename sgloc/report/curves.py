"""Plots of a run's metrics.jsonl."""

import contextlib
import io
import json
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from sgloc.storage import Storage

# Distinguishable with any type of colour vision.
_COLORS = {"train": "#0072b2", "validation": "#d55e00"}
# Plot titles, by the field shown.
_LOSSES = {
    "loss": "loss (nats per drawing)",
    "mixture": "point loss (nats per drawing)",
    "pen": "pen loss (nats per drawing)",
}
_SPEED = {
    "sketches_per_second": "drawings per second",
    "gradient_norm": "gradient norm",
    "learning_rate": "learning rate",
}
# For each figure: its height in inches, the events with a curve each, and its plots.
PLOTS = {"losses": (3.2, ("train", "validation"), _LOSSES), "speed": (2.6, ("train",), _SPEED)}

Record = dict[str, Any]


def read_records(run_dir: str) -> list[Record]:
    """Read the complete lines of a run's metrics.jsonl; empty if the file does not exist.

    Args:
        run_dir: folder or URL of the run.
    """
    storage = Storage(run_dir)
    if not storage.exists("metrics.jsonl"):
        return []
    with storage.reading("metrics.jsonl"):
        lines = storage.content("metrics.jsonl").decode(errors="replace").splitlines()
    records = []
    for line in lines:
        # A killed run may leave a truncated line.
        with contextlib.suppress(ValueError, TypeError, KeyError):
            record = json.loads(line)
            record["step"] = int(record["step"])
            records.append(record)
    return records


def plot(records: list[Record], name: str) -> str:
    """Draw one figure of `PLOTS` as SVG: fields side by side over the steps, one curve per event."""
    height, events, titles = PLOTS[name]
    figure = Figure(figsize=(11, height), layout="constrained")
    for axes, (field, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        for event in events:
            own = [record for record in records if record.get("event") == event]
            points = [(record["step"], record[field]) for record in own if isinstance(record.get(field), int | float)]
            if points:
                style = {"color": _COLORS[event], "marker": "o" if len(points) < 40 else "", "label": event}
                axes.plot(*zip(*points, strict=True), markersize=3, linewidth=1.4, **style)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if len(events) > 1:
            axes.legend(frameon=False, fontsize=8)
        else:
            axes.set_ylim(bottom=0)
    buffer = io.StringIO()
    # A fixed salt makes equal plots equal byte for byte.
    with matplotlib.rc_context({"svg.hashsalt": "sgloc"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()
