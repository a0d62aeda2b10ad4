"""Shards over HTTP, from a server that knows no byte ranges."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sgloc.data.manifest import load_manifest
from sgloc.data.shards import build_shards
from sgloc.data.stream import ShardReader, fixed_batches
from tests.drawings import make_drawings, write_ndjson


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves whole files and ignores Range; tells nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of a folder of shards."""
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(600, ["cat"]))
    build_shards(str(tmp_path / "cat.ndjson"), str(tmp_path / "out"))
    handler = functools.partial(Quiet, directory=str(tmp_path / "out"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_a_server_without_ranges_gives_the_same_sketches(server: str, tmp_path: Path) -> None:
    batches = []
    for folder in (server, str(tmp_path / "out")):
        manifest = load_manifest(folder)
        reader = ShardReader(folder, manifest, "train", num_kept_blocks=8)
        (batch,) = fixed_batches(reader, np.arange(reader.num_sketches), batch_size=10**6)
        batches.append(batch)
    remote, local = batches
    np.testing.assert_array_equal(remote.offsets, local.offsets)
    np.testing.assert_array_equal(remote.key_id, local.key_id)
