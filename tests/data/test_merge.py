"""`sgloc shards merge`: the merged shards contain exactly the drawings of the builds."""

import json
import os
import shutil
from pathlib import Path

import fsspec
import pytest

from sgloc.cli import main
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import SPLITS, load_manifest
from sgloc.data.shards.merge import merge_shards
from sgloc.data.shards.verify import verify_shards
from sgloc.errors import DataError
from tests.builds import folder_bytes, read_back
from tests.commands import Said
from tests.drawings import make_drawings, write_ndjson

SMALL = BuildOptions(sketches_per_shard=128, sketches_per_block=64)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three builds whose shards have the same names; read-only."""
    folders = []
    for number, name in enumerate(("zebra", "ant", "cat")):
        folder = tmp_path_factory.mktemp(name)
        write_ndjson(folder / f"{name}.ndjson", make_drawings(300, [name], seed=number, first_key_id=1 + number * 1000))
        with (folder / f"{name}.ndjson").open("a") as stream:
            stream.write(f"not a drawing of a {name}\n")
        build_shards(str(folder), str(folder / "shards"), SMALL)
        folders.append(str(folder / "shards"))
    return folders


def expect_merged(out: str, builds: list[str]) -> None:
    """Assert that the merge contains all drawings in the order of the builds, and verifies without problems."""
    merged = load_manifest(out)
    manifests = [load_manifest(folder) for folder in builds]
    assert merged.categories == sorted({name for manifest in manifests for name in manifest.categories})
    for split in SPLITS:
        expected = [
            sketch
            for folder, manifest in zip(builds, manifests, strict=True)
            for sketch in read_back(folder, manifest, split)
        ]
        assert read_back(out, merged, split) == expected
    problems: list[str] = []
    verify_shards(out, problems.append)
    assert problems == []


def test_a_merge_holds_what_the_builds_hold(builds: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[tuple[int, int]] = []
    manifest = merge_shards(builds, str(out), progress=lambda *counts: seen.append(counts))
    assert manifest == load_manifest(str(out))
    assert manifest.num_read == 903
    expect_merged(str(out), builds)
    rejects = [json.loads(line)["source"] for line in (out / "rejects.ndjson").read_text().splitlines()]
    assert rejects == ["zebra.ndjson", "ant.ndjson", "cat.ndjson"]
    num_shards = len(list(out.glob("*.tar")))
    assert seen == [(number, num_shards) for number in range(num_shards + 1)]


def test_shards_of_one_disk_are_linked(builds: list[str], tmp_path: Path) -> None:
    merge_shards(builds[:2], str(tmp_path / "out"))
    for number, folder in enumerate(builds[:2]):
        merged = tmp_path / f"out/train-{number:05d}-00000.tar"
        assert merged.samefile(f"{folder}/train-00000-00000.tar")


def test_shards_are_copied_where_they_cannot_be_linked(
    builds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another device")

    merge_shards(builds, str(tmp_path / "linked"))
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr("sgloc.storage.folder._PIECE_BYTES", 1000)
    merge_shards(builds, str(tmp_path / "copied"))
    assert folder_bytes(tmp_path / "copied") == folder_bytes(tmp_path / "linked")
    assert (tmp_path / "copied/train-00000-00000.tar").stat().st_nlink == 1


def test_memory(builds: list[str], tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    merge_shards(builds[:2], "memory://merged")
    expect_merged("memory://merged", builds[:2])
    # Merge a store with a local folder, into either.
    merge_shards(["memory://merged", builds[2]], str(tmp_path / "out"))
    expect_merged(str(tmp_path / "out"), builds)
    merge_shards(["memory://merged", builds[2]], "memory://again")
    expect_merged("memory://again", builds)
    assert {path.rsplit("/", 1)[-1]: files.cat_file(path) for path in files.ls("/again", detail=False)} == folder_bytes(
        tmp_path / "out"
    )


def test_a_killed_merge_started_again_gives_the_same(builds: list[str], tmp_path: Path) -> None:
    merge_shards(builds, str(tmp_path / "expected"))
    expected = folder_bytes(tmp_path / "expected")
    out = tmp_path / "out"
    for stop in range(len(expected) - 2):

        def interrupt(done: int, _: int, stop: int = stop) -> None:
            if done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            merge_shards(builds, str(out), progress=interrupt)
        assert not (out / "manifest.json").exists()
    # A partial file as left by a process killed while copying.
    (out / f"train-00000-00000.tar.{'0123' * 8}.partial").write_bytes(b"half")
    (out / "train-00009-00000.tar").write_bytes(b"of a merge of other builds")
    merge_shards(builds, str(out))
    assert folder_bytes(out) == expected


def test_shards_are_replaced_only_when_asked(builds: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge_shards(builds, str(out))
    before = folder_bytes(out)
    (out / "mine.tar").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"already holds shards; choose another folder, or overwrite them$"):
        merge_shards(builds[:1], str(out))
    assert folder_bytes(out) == {**before, "mine.tar": b"mine"}
    merge_shards(builds[:2], str(out), overwrite=True)
    assert (out / "mine.tar").read_bytes() == b"mine"
    (out / "mine.tar").unlink()
    expect_merged(str(out), builds[:2])
    assert all(Path(folder, "train-00000-00000.tar").exists() for folder in builds)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_no_merge_wrote_stays(builds: list[str], tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "train-00000-00000.tar").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"holds train-00000-00000\.tar, which no build or merge wrote"):
        merge_shards(builds, str(tmp_path), overwrite=overwrite)
    (tmp_path / "plan.sha256").write_text("0")
    with pytest.raises(DataError, match="holds an unfinished build"):
        merge_shards(builds, str(tmp_path), overwrite=overwrite)
    assert folder_bytes(tmp_path) == {"plan.sha256": b"0", "train-00000-00000.tar": b"mine"}


@pytest.mark.parametrize("name", ["{}", "{}/", "{}/../shards"], ids=["same", "slash", "by-another-way"])
def test_a_build_cannot_be_merged_into_itself(builds: list[str], name: str) -> None:
    before = folder_bytes(Path(builds[0]))
    with pytest.raises(DataError, match="is itself one of the builds to merge"):
        merge_shards(builds, name.format(builds[0]), overwrite=True)
    assert folder_bytes(Path(builds[0])) == before


@pytest.mark.parametrize("linked", [True, False])
def test_a_damaged_shard_is_not_taken(
    builds: list[str], tmp_path: Path, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not linked:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("another device")))
    merge_shards(builds[:1], str(tmp_path / "copy"))
    shard = tmp_path / "copy/train-00000-00000.tar"
    content = bytearray(shard.read_bytes())
    content[2000] ^= 1
    shard.unlink()
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"train-00000-00000\.tar in .*copy is damaged: its SHA-256 differs"):
        merge_shards([str(tmp_path / "copy"), builds[1]], str(tmp_path / "out"))
    shard.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"has \d+ bytes, but its manifest says \d+"):
        merge_shards([str(tmp_path / "copy"), builds[1]], str(tmp_path / "out"))
    shard.unlink()
    with pytest.raises(DataError, match=r"train-00000-00000\.tar does not exist"):
        merge_shards([str(tmp_path / "copy"), builds[1]], str(tmp_path / "out"))
    assert set(folder_bytes(tmp_path / "out")) == {"rejects.ndjson"}


def test_builds_that_do_not_fit(builds: list[str], tmp_path: Path) -> None:
    write_ndjson(tmp_path / "bee.ndjson", make_drawings(300, ["bee"]))
    build_shards(str(tmp_path / "bee.ndjson"), str(tmp_path / "bee"), BuildOptions(licence="mine"))
    with pytest.raises(DataError, match="different licence"):
        merge_shards([builds[0], str(tmp_path / "bee")], str(tmp_path / "out"))
    with pytest.raises(DataError, match=r"manifest\.json does not exist"):
        merge_shards([builds[0], str(tmp_path / "nowhere")], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_build_is_joined_once(builds: list[str], tmp_path: Path, said: Said) -> None:
    shutil.copytree(builds[0], tmp_path / "copy")
    merge_shards(builds[:2], str(tmp_path / "joined"))
    for again in (builds[0], f"{builds[0]}/", str(tmp_path / "copy"), str(tmp_path / "joined")):
        text = said("shards", "merge", builds[2], builds[0], again, "--out", tmp_path / "out")
        assert f"{builds[0]} and {again} hold a shard of the same drawings; pass each build once" in text
    assert not (tmp_path / "out").exists()


def test_rejects_that_were_lost(builds: list[str], tmp_path: Path) -> None:
    merge_shards(builds[:1], str(tmp_path / "copy"))
    (tmp_path / "copy/rejects.ndjson").write_bytes(b"")
    with pytest.raises(DataError, match="has 0 lines, but the manifest counts 1 rejected drawings"):
        merge_shards([str(tmp_path / "copy"), builds[1]], str(tmp_path / "out"))


def test_the_command(builds: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    main(["shards", "merge", "--out", out, *builds])
    assert capsys.readouterr().out.startswith(f"{out}: 900 drawings in 3 categories and ")
    expect_merged(out, builds)
    with pytest.raises(SystemExit) as stop:
        main(["shards", "merge", "--out", out, *builds])
    assert stop.value.code == 2
    assert "already holds shards" in capsys.readouterr().err
    main(["shards", "merge", "--out", out, *builds, "--overwrite"])
