"""`python -m benchmarks webdataset`: the stream compared with a plain webdataset. No test asserts absolute times."""

import json

import pytest

from benchmarks.webdataset import NAME, study_webdataset
from sgloc.bench.options import StreamOptions
from sgloc.models.sketchgloc.config import Config


# webdataset relies on the garbage collector to close its tar files.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_the_stream_and_a_webdataset_of_the_same_drawings_are_measured(tiny_shards: str) -> None:
    report = study_webdataset(StreamOptions(data=tiny_shards, batch=6, repeats=1), Config())
    records = {record["name"]: record for record in map(json.loads, report.to_json().splitlines())}
    assert [name for name in records if "seconds" in records[name]] == ["stream", "stream and preparation", NAME]
    rates = [records[name]["sketches_per_second"] for name in ("stream", NAME)]
    # All 384 counted sketches and all 24 members fill complete batches.
    assert records["rate of the stream as a multiple"][f"of {NAME}"] == pytest.approx(rates[0] / rates[1])
