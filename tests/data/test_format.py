"""Shards as shards/README.md documents them, read by code that knows nothing else about the format."""

import hashlib
import io
import json
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.formats.form import forms
from sgloc.sketch.drawing import Drawing
from sgloc.sketch.rejects import REASONS
from tests.drawings import make_drawings, write_ndjson

README = Path(__file__).parents[2] / "shards" / "README.md"
DRAWINGS = make_drawings(700, ["cat", "The Great Wall of China"], points=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("format")
    write_ndjson(folder / "all.ndjson", DRAWINGS)
    options = BuildOptions(sketches_per_shard=256, sketches_per_block=64)
    build_shards(str(folder / "all.ndjson"), str(folder / "out"), options)
    return folder / "out"


def split_by_hash(key_id: int) -> str:
    """Return the split of a key_id, computed as the README describes."""
    digest = hashlib.blake2b(key_id.to_bytes(8, "little"), digest_size=8).digest()
    u = int.from_bytes(digest, "little") / 2**64
    return "valid" if 30 * u < 1 else "test" if 30 * u < 2 else "train"


def drawings_of(block: Any) -> list[Drawing]:
    """Return the drawings of a block."""
    drawings, stroke, point = [], 0, 0
    for number, num_strokes in enumerate(block["num_strokes"].tolist()):
        lengths = block["stroke_lengths"][stroke : stroke + num_strokes].tolist()
        stroke3 = np.zeros((sum(lengths), 3), dtype=np.int16)
        stroke3[:, :2] = block["offsets"][point : point + len(stroke3)]
        stroke3[np.cumsum(lengths) - 1, 2] = 1
        word = str(block["words"][block["category"][number]])
        drawings.append(Drawing(word, int(block["key_id"][number]), bool(block["recognized"][number]), stroke3))
        stroke, point = stroke + num_strokes, point + len(stroke3)
    return drawings


def expect_drawings(found: list[Drawing], split: str) -> None:
    expected = [drawing for drawing in DRAWINGS if split_by_hash(drawing.key_id) == split]
    assert [(one.category, one.key_id, one.recognized) for one in found] == [
        (one.category, one.key_id, one.recognized) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.stroke3, other.stroke3)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_tar_of_npz_members(folder: Path, split: str) -> None:
    found: list[Drawing] = []
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            assert [member.name for member in tar] == [f"{number:06d}.npz" for number in range(len(tar.getnames()))]
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                with np.load(io.BytesIO(content.read()), allow_pickle=False) as block:
                    found += drawings_of(block)
    expect_drawings(found, split)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_ranges_of_bytes_that_the_manifest_tells(folder: Path, split: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    found: list[Drawing] = []
    for shard in manifest["splits"][split]["shards"]:
        content = (folder / shard["path"]).read_bytes()
        assert len(content) == shard["num_bytes"]
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]
        blocks = (shard["block_offsets"], shard["block_sizes"], shard["block_checksums"])
        for offset, size, checksum in zip(*blocks, strict=True):
            block = content[offset : offset + size]
            assert zlib.crc32(block) == checksum
            with np.load(io.BytesIO(block), allow_pickle=False) as arrays:
                found += drawings_of(arrays)
    expect_drawings(found, split)


def test_the_bytes_of_a_shard_are_those_of_webdatasets_own_writer(folder: Path) -> None:
    for path in sorted(folder.glob("*.tar")):
        written = io.BytesIO()
        writer = webdataset.TarWriter(written, user="sgloc", group="sgloc", mtime=0, compress=False)
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                key, _, ending = member.name.partition(".")
                writer.write({"__key__": key, ending: content.read()})
        writer.close()
        assert path.read_bytes() == written.getvalue()


# webdataset leaves closing its tar files to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_the_readmes_line_of_webdataset(folder: Path) -> None:
    (line,) = re.findall(r"^blocks = (.*)$", README.read_text(), re.MULTILINE)
    line = re.sub(r'"shards/.*?\.tar"', "paths", line)
    paths = [str(path) for path in sorted(folder.glob("train-*.tar"))]
    blocks = eval(line, {"webdataset": webdataset, "paths": paths})  # noqa: S307 (it is our own README)
    expect_drawings([drawing for (block,) in blocks for drawing in drawings_of(block)], "train")


def test_every_field_of_the_manifest_is_told(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    text = README.read_text()
    shard = manifest["splits"]["train"]["shards"][0]
    for name in [*manifest, *manifest["splits"], *manifest["splits"]["train"], *shard, *manifest["moments"]]:
        assert f"`{name}`" in text, name


def test_every_reason_is_told() -> None:
    text = README.read_text()
    assert forms()
    for reason in [*REASONS, "duplicate_key_id"]:
        assert f"`{reason}`" in text, reason
