"""The curves of a run, from its metrics.jsonl."""

import io
import json
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from sgloc.storage import Storage

# Told apart by readers of any colour vision.
_TRAIN, _VALIDATION = "#0072b2", "#d55e00"

Record = dict[str, Any]


def read_records(run_dir: str) -> list[Record]:
    """The lines of a run's metrics.jsonl, as far as they are whole; none if there is no such file.

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
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, name, title in zip(
        figure.subplots(1, 3), ("loss", "mixture", "pen"), ("loss", "of it points", "of it the pen"), strict=True
    ):
        for event, color in (("train", _TRAIN), ("validation", _VALIDATION)):
            _curve(axes, [record for record in records if record.get("event") == event], name, color, event)
        axes.set_title(f"{title}, nats a drawing", fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def plot_speed(records: list[Record]) -> str:
    """Drawings a second, gradient norm and learning rate over the steps, as SVG."""
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    training = [record for record in records if record.get("event") == "train"]
    for axes, (name, title) in zip(
        figure.subplots(1, 3),
        (
            ("sketches_per_second", "drawings a second"),
            ("gradient_norm", "norm of the gradient"),
            ("learning_rate", "learning rate"),
        ),
        strict=True,
    ):
        _curve(axes, training, name, _TRAIN, title)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(bottom=0)
    return _svg(figure)


def _curve(axes: Axes, records: list[Record], name: str, color: str, label: str) -> None:
    points = [(record["step"], record[name]) for record in records if isinstance(record.get(name), int | float)]
    if points:
        marker = "o" if len(points) < 40 else ""
        axes.plot(*zip(*points, strict=True), color=color, label=label, marker=marker, markersize=3, linewidth=1.4)
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # The same curves give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "sgloc"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()
