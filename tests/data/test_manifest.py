"""Reading manifests: only a complete, consistent manifest of this format and version is accepted."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import Manifest, join_manifests, load_manifest, parse_manifest
from sgloc.errors import DataError
from tests.drawings import make_drawings, write_ndjson

SMALL = BuildOptions(sketches_per_shard=256, sketches_per_block=128)
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("shards")
    write_ndjson(folder / "cat.ndjson", make_drawings(600, ["cat"]))
    return build_shards(str(folder / "cat.ndjson"), str(folder / "out"), SMALL)


def refuse(folder: Path, text: str | bytes, message: str) -> None:
    """Expect a DataError that names the file and matches the message."""
    path = folder / "manifest.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        load_manifest(str(folder))
    assert str(caught.value).startswith(str(path))


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    assert load_manifest(str(tmp_path)) == load_manifest(f"{tmp_path}/") == manifest


def test_identity_tells_manifests_apart(tmp_path: Path, manifest: Manifest) -> None:
    fields = json.loads(manifest.to_json())
    fields["splits"]["train"]["shards"][0]["sha256"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    assert load_manifest(str(tmp_path)).identity != manifest.identity
    (tmp_path / "manifest.json").write_text(json.dumps(json.loads(manifest.to_json())))
    assert load_manifest(str(tmp_path)).identity == manifest.identity


def test_identity_is_computed_once_and_belongs_to_the_fields(manifest: Manifest) -> None:
    assert manifest.identity is manifest.identity
    assert dataclasses.replace(manifest, licence="another").identity != manifest.identity


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


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"<html>Not found</html>", b"\x00" * 512], ids=["not-utf8", "page", "zeros"]
)
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    refuse(tmp_path, content, "cannot be read as a manifest")


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "3", "{}", '{"version": 1}', '{"format": "other", "version": 1}'],
    ids=["list", "null", "number", "no-field", "version-alone", "other-format"],
)
def test_what_is_not_a_manifest_is_refused(tmp_path: Path, content: str) -> None:
    refuse(tmp_path, content, "is not a manifest of sgloc-shards")


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_another_version_is_refused(tmp_path: Path, manifest: Manifest, version: object) -> None:
    fields = {**json.loads(manifest.to_json()), "version": version}
    refuse(tmp_path, json.dumps(fields), f"is of format version {version}, but this program reads version 2")


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("scale"),
        lambda fields: fields.pop("splits"),
        lambda fields: fields["splits"].pop("valid"),
        lambda fields: fields["splits"]["train"].pop("points"),
        lambda fields: fields["splits"]["train"].update(points={"many": 3}),
        lambda fields: fields["splits"]["train"].update(points=[3]),
        lambda fields: fields.pop("moments"),
        lambda fields: fields["moments"].update(count="3"),
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
    ids=[
        "no-scale",
        "no-splits",
        "no-valid",
        "no-points",
        "points-of-many",
        "list-of-points",
        "no-moments",
        "count-as-text",
        "no-block-offsets",
        "number-as-shard",
        "four-splits",
        "one-field-more",
        "list-of-splits",
        "null-sources",
        "zero-scale",
        "nan-scale",
        "scale-as-text",
        "empty-blocks",
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
        lambda fields: fields["splits"]["train"]["shards"][0].update(block_checksums=[1]),
        lambda fields: fields["splits"]["train"]["shards"][0].update(path="../train-00000-00000.tar"),
        lambda fields: fields["splits"]["train"]["points"].update({"4": 10**6}),
        lambda fields: fields["splits"]["train"]["points"].update({"4": -1}),
        lambda fields: fields["splits"]["train"]["categories"].update(dog=1),
        lambda fields: fields["moments"].update(sum=0),
        lambda fields: fields.update(scale=fields["scale"] * 1.001),
        lambda fields: fields.update(sketches_per_block=1.5),
        lambda fields: fields.update(scale=float("inf")),
        lambda fields: fields.update(categories=None),
    ],
    ids=[
        "shard-missing",
        "num-sketches-as-text",
        "num-sketches-too-many",
        "no-block-offset",
        "null-block-size",
        "one-checksum",
        "path-outside",
        "points-too-many",
        "points-negative",
        "category-unknown",
        "moments-zero",
        "scale-not-of-moments",
        "half-a-sketch-a-block",
        "infinite-scale",
        "null-categories",
    ],
)
def test_a_manifest_that_does_not_fit_together_is_refused(tmp_path: Path, manifest: Manifest, change: Change) -> None:
    fields = json.loads(manifest.to_json())
    change(fields)
    refuse(tmp_path, json.dumps(fields), "is malformed")


def test_a_shard_stands_on_a_line(manifest: Manifest) -> None:
    lines = [line for line in manifest.to_json().splitlines() if '"path"' in line]
    assert len(lines) == sum(len(split.shards) for split in manifest.splits.values())


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """Builds of cats, of dogs, and of both together, each with its own shard names."""
    folder = tmp_path_factory.mktemp("parts")
    cats, dogs = make_drawings(300, ["cat"]), make_drawings(400, ["dog"], seed=1, first_key_id=1000, points=9)
    manifests = []
    for name, drawings in (("a", cats), ("b", dogs), ("c", cats + dogs)):
        write_ndjson(folder / f"{name}.ndjson", drawings)
        manifest = build_shards(str(folder / f"{name}.ndjson"), str(folder / name), SMALL)
        text = re.sub(r'"path": "', f'"path": "{name}-', manifest.to_json())
        manifests.append(parse_manifest(text.encode(), name))
    return manifests


def test_joined_builds_are_as_one_build_of_all(parts: list[Manifest]) -> None:
    joined, whole = join_manifests(parts[:2]), parts[2]
    for name in ("categories", "scale", "moments", "longest_points", "longest_strokes", "num_read", "rejected"):
        assert getattr(joined, name) == getattr(whole, name), name
    for split in whole.splits:
        for name in ("categories", "points", "strokes", "num_sketches", "num_points", "num_strokes"):
            assert getattr(joined.splits[split], name) == getattr(whole.splits[split], name), name
        paths = [shard.path for manifest in parts[:2] for shard in manifest.splits[split].shards]
        assert [shard.path for shard in joined.splits[split].shards] == paths
    assert [source.name for source in joined.sources] == ["a.ndjson", "b.ndjson"]
    assert parse_manifest(joined.to_json().encode(), "it") == joined


def test_what_cannot_be_joined_is_told(parts: list[Manifest]) -> None:
    with pytest.raises(DataError, match="2 of the builds have a shard named a-"):
        join_manifests([parts[0], parts[0]])
    with pytest.raises(DataError, match=r"different licence cannot be joined: .*MIT"):
        join_manifests([parts[0], dataclasses.replace(parts[1], licence="MIT")])
    with pytest.raises(DataError, match="different sketches_per_block cannot be joined: 128 and 64"):
        join_manifests([parts[0], dataclasses.replace(parts[1], sketches_per_block=64)])
    with pytest.raises(DataError, match="nothing to join"):
        join_manifests([])
