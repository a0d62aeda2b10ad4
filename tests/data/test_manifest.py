"""What a manifest is taken for: nothing but a whole one of this format and version."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgloc.data.manifest import Manifest, load_manifest, manifest_path
from sgloc.data.shards import build_shards
from sgloc.errors import DataError
from tests.drawings import make_drawings, write_ndjson

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("shards")
    write_ndjson(folder / "cat.ndjson", make_drawings(600, ["cat"]))
    return build_shards(str(folder / "cat.ndjson"), str(folder / "out"), sketches_per_shard=256)


def refuse(folder: Path, text: str | bytes, message: str) -> None:
    """Expect a DataError that names the file and says this."""
    path = folder / "manifest.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        load_manifest(str(folder))
    assert str(caught.value).startswith(str(path))


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    assert load_manifest(str(tmp_path)) == load_manifest(f"{tmp_path}/") == manifest
    assert manifest_path(f"{tmp_path}/") == manifest_path(str(tmp_path)) == str(tmp_path / "manifest.json")


def test_identity_tells_manifests_apart(tmp_path: Path, manifest: Manifest) -> None:
    fields = json.loads(manifest.to_json())
    fields["splits"]["train"]["shards"][0]["sha256"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    assert load_manifest(str(tmp_path)).identity != manifest.identity
    (tmp_path / "manifest.json").write_text(json.dumps(json.loads(manifest.to_json())))
    assert load_manifest(str(tmp_path)).identity == manifest.identity


def test_a_missing_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"manifest\.json does not exist; give a folder that `sgloc shard` wrote"
    ) as caught:
        load_manifest(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(DataError, match=r"^memory://no/such/manifest\.json does not exist"):
        load_manifest("memory://no/such")


def test_a_truncated_manifest_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    text = manifest.to_json()
    for length in range(0, len(text) - 2, 97):
        refuse(tmp_path, text[:length], "cannot be read as a manifest")
    refuse(tmp_path, text.rstrip()[:-1], "cannot be read as a manifest")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"<html>Not found</html>", b"\x00" * 512])
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    refuse(tmp_path, content, "cannot be read as a manifest")


@pytest.mark.parametrize("content", ["[]", "null", "3", "{}", '{"version": 1}', '{"format": "other", "version": 1}'])
def test_what_is_not_a_manifest_is_refused(tmp_path: Path, content: str) -> None:
    refuse(tmp_path, content, "is not a manifest of sgloc-shards")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused(tmp_path: Path, manifest: Manifest, version: object) -> None:
    fields = {**json.loads(manifest.to_json()), "version": version}
    refuse(tmp_path, json.dumps(fields), f"is of format version {version}, this program reads version 1")


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("scale"),
        lambda fields: fields.pop("splits"),
        lambda fields: fields["splits"].pop("valid"),
        lambda fields: fields["splits"]["train"].pop("num_sketches"),
        lambda fields: fields["splits"]["train"]["shards"][0].pop("block_offsets"),
        lambda fields: fields["splits"]["train"]["shards"].append(3),
        lambda fields: fields["splits"].update(more=fields["splits"]["train"]),
        lambda fields: fields.update(more=1),
        lambda fields: fields.update(splits=[]),
        lambda fields: fields.update(sources=None),
        lambda fields: fields.update(scale=0),
        lambda fields: fields.update(scale=float("nan")),
        lambda fields: fields.update(scale="1"),
        lambda fields: fields.update(sketches_per_block=0),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, manifest: Manifest, change: Change) -> None:
    fields = json.loads(manifest.to_json())
    change(fields)
    refuse(tmp_path, json.dumps(fields), "is malformed")


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields["splits"]["train"]["shards"].pop(),
        lambda fields: fields["splits"]["train"]["shards"][0].update(num_sketches="256"),
        lambda fields: fields["splits"]["train"]["shards"][0].update(num_sketches=999),
        lambda fields: fields["splits"]["train"]["shards"][0].update(block_offsets=[]),
        lambda fields: fields["splits"]["train"]["shards"][0].update(block_sizes=[None]),
        lambda fields: fields["splits"]["train"].update(num_sketches=10**6),
        lambda fields: fields.update(sketches_per_block=1.5),
        lambda fields: fields.update(scale=float("inf")),
        lambda fields: fields.update(categories=None),
    ],
)
def test_a_manifest_that_does_not_fit_together_is_refused(tmp_path: Path, manifest: Manifest, change: Change) -> None:
    fields = json.loads(manifest.to_json())
    change(fields)
    refuse(tmp_path, json.dumps(fields), "is malformed")
