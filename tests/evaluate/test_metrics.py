"""Metrics are discovered as files: an added file is computed, summarised and shown in the reports."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgloc.cli import main
from sgloc.evaluate import metrics
from tests.checkpoints import make_model, save_model

STROKES = '''
"""The mean number of strokes."""

import numpy as np

from sgloc.evaluate.metric import Metric, cell


class Strokes(Metric):
    name, position, header = "strokes", 15, ("strokes",)

    def applies(self, models):
        return models.classifier is None

    def share(self, originals):
        return {"count": np.array([len(strokes) for strokes in originals.strokes])}

    def collect(self, sketches, models):
        return {"count": np.array([len(strokes) for strokes in sketches.strokes])}

    def finish(self, arrays, shared, rows):
        return {"difference": arrays["count"] - shared["count"][rows].numpy()}

    def summarise(self, arrays, bootstrap):
        return bootstrap.mean(arrays["difference"])

    def cells(self, summary):
        return [cell(summary)]


METRIC = Strokes()
'''


@pytest.fixture
def strokes_metric(tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "more_metrics"
    folder.mkdir()
    (folder / "strokes.py").write_text(STROKES)
    metrics.__path__.append(str(folder))
    metrics.all_metrics.cache_clear()
    yield
    metrics.__path__.remove(str(folder))
    sys.modules.pop("sgloc.evaluate.metrics.strokes", None)
    metrics.all_metrics.cache_clear()


def evaluate(shards: str, folder: Path) -> Path:
    checkpoint = save_model(folder / "run", shards, make_model())
    words = ["--checkpoint", str(checkpoint), "--data", shards, "--out", str(folder / "out")]
    main(["evaluate", *words, "--disturb", "0", "--batch_size", "5", "--resamples", "10"])
    return folder / "out"


@pytest.mark.usefixtures("strokes_metric")
def test_a_file_more_is_a_metric_more(tiny_shards: str, tmp_path: Path) -> None:
    out = evaluate(tiny_shards, tmp_path)
    (task,) = json.loads((out / "results.json").read_text())["tasks"]
    fields = [name for name in task if not name.startswith("given_")]
    assert fields == ["task", "sketches", "empty", "rec", "strokes", "ret", "distance", "categories"]
    # The given sketches are the originals themselves; the model draws a different number of strokes.
    assert task["given_strokes"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert task["strokes"]["value"] != 0.0
    assert set(task["categories"]["cat"]) > {"strokes", "given_strokes"}
    header = (out / "results.md").read_text().splitlines()[4]
    assert header.startswith("| task | sketches | Rec | strokes | Ret top-1 |")
