"""What the tests of training share."""

from pathlib import Path

import pytest

from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.sketch.synthetic import write_sample


@pytest.fixture(scope="session")
def sample_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of a small synthetic sample: 8 categories of 30 + 5 + 5 drawings."""
    folder: Path = tmp_path_factory.mktemp("sample")
    files = write_sample(str(folder / "npz"), num_train=30, num_valid=5, num_test=5, seed=0)
    build_shards(files, str(folder / "shards"), BuildOptions(sketches_per_shard=64))
    return str(folder / "shards")
