"""The curves of a run, from its metrics.jsonl."""

import contextlib
import io
import json
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
# Of each picture its height in inches, whose curves it has, and its axes.
PLOTS = {"losses": (3.2, ("train", "validation"), _LOSSES), "speed": (2.6, ("train",), _SPEED)}

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
        # A kill may have cut it short.
        with contextlib.suppress(ValueError, TypeError, KeyError):
            record = json.loads(line)
            record["step"] = int(record["step"])
            records.append(record)
    return records


def plot(records: list[Record], name: str) -> str:
    """One of `PLOTS`, as SVG: fields side by side over the steps, a curve an event."""
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
    # The same curves give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "sgloc"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()
