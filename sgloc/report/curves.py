"""The curves of a run, from its metrics.jsonl."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from sgloc.storage import Storage

# Readers of any colour vision can tell these apart.
_COLORS = {"train": "#0072b2", "validation": "#d55e00"}
# Titles of the axes, by the field that they show.
_LOSSES = {
    "loss": "loss, nats a drawing",
    "mixture": "loss of the points, nats a drawing",
    "pen": "loss of the pen, nats a drawing",
}
_SPEED = {
    "sketches_per_second": "drawings a second",
    "gradient_norm": "norm of the gradient",
    "learning_rate": "learning rate",
}

Record = dict[str, Any]


def read_records(run_dir: str) -> list[Record]:
    """The whole lines of a run's metrics.jsonl; none if there is no such file.

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
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def plot_losses(records: list[Record]) -> str:
    """Loss and its parts over the steps, in training and validation, as SVG."""
    return _plot(records, _LOSSES, ["train", "validation"], 3.2)


def plot_speed(records: list[Record]) -> str:
    """Drawings a second, gradient norm and learning rate over the steps, as SVG."""
    return _plot(records, _SPEED, ["train"], 2.6)


def _plot(records: list[Record], titles: Mapping[str, str], events: Sequence[str], height: float) -> str:
    """Fields side by side over the steps, a curve an event."""
    figure = Figure(figsize=(11, height), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        for event in events:
            own = [record for record in records if record.get("event") == event]
            points = [(record["step"], record[name]) for record in own if isinstance(record.get(name), int | float)]
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
    # The same curves give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "sgloc"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()
