"""`sgloc shards verify` reports every kind of damage, and nothing else."""

import dataclasses
import hashlib
import io
import os
import re
import shutil
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from sgloc.cli import main
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import Manifest, Shard, load_manifest
from sgloc.data.shards import verify as module
from sgloc.data.shards.verify import Verification, verify_shards
from sgloc.errors import ConfigError, DataError
from tests.drawings import make_drawings, write_ndjson

SMALL = BuildOptions(sketches_per_shard=128, sketches_per_block=64)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of at least two blocks, with one reject; read-only."""
    folder = tmp_path_factory.mktemp("built")
    write_ndjson(folder / "all.ndjson", make_drawings(400))
    with (folder / "all.ndjson").open("a") as stream:
        stream.write("not a drawing\n")
    build_shards(str(folder / "all.ndjson"), str(folder / "shards"), SMALL)
    return folder / "shards"


@pytest.fixture
def shards(built: Path, tmp_path: Path) -> Path:
    """A copy of the shards that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "shards"))


def problems_of(folder: Path | str, num_workers: int = 1) -> list[str]:
    """Return the reported problems, which the result must count."""
    told: list[str] = []
    verification = verify_shards(str(folder), told.append, num_workers=num_workers)
    assert verification.num_problems == len(told)
    return told


def expect_one(folder: Path, expected: str, num_workers: int = 1) -> None:
    (problem,) = problems_of(folder, num_workers)
    assert re.search(expected, problem), problem


def first_shard(folder: Path) -> Shard:
    return load_manifest(str(folder)).splits["train"].shards[0]


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def rewrite(folder: Path, **changes: Any) -> None:
    """Change fields of the manifest."""
    text = dataclasses.replace(load_manifest(str(folder)), **changes).to_json()
    (folder / "manifest.json").write_text(text)


def rewrite_split(folder: Path, name: str, **changes: Any) -> None:
    manifest = load_manifest(str(folder))
    split = dataclasses.replace(manifest.splits[name], **changes)
    rewrite(folder, splits={**manifest.splits, name: split})


def rewrite_first_shard(folder: Path, **changes: Any) -> None:
    shards = load_manifest(str(folder)).splits["train"].shards
    rewrite_split(folder, "train", shards=[dataclasses.replace(shards[0], **changes), *shards[1:]])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_was_built_is_sound(built: Path, num_workers: int) -> None:
    told: list[str] = []
    seen: list[tuple[int, int]] = []
    found = verify_shards(
        str(built), told.append, num_workers=num_workers, progress=lambda *counts: seen.append(counts)
    )
    shards = [shard for split in load_manifest(str(built)).splits.values() for shard in split.shards]
    num_bytes = sum(path.stat().st_size for path in built.glob("*.tar"))
    assert told == []
    assert found == Verification(0, len(shards), 400, num_bytes, [])
    assert seen == [(number, len(shards)) for number in range(1, len(shards) + 1)]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_shards_of_npz_are_sound(tiny_shards: str, tmp_path: Path, compression: str) -> None:
    assert problems_of(tiny_shards) == []
    write_ndjson(tmp_path / "all.ndjson", make_drawings(300))
    build_shards(str(tmp_path), str(tmp_path / "out"), BuildOptions(compression=compression))
    assert problems_of(tmp_path / "out") == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_flipped_bit_in_a_block(shards: Path, num_workers: int) -> None:
    shard = first_shard(shards)
    flip(shards / shard.path, shard.block_offsets[1] + 300)
    expect_one(shards, rf"^{shard.path}: block 1 \(bytes \d+ to \d+\) is damaged: its checksum is", num_workers)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_flipped_bit_in_a_tar_header(shards: Path, num_workers: int) -> None:
    shard = first_shard(shards)
    flip(shards / shard.path, shard.block_offsets[1] - 500)
    place = shard.block_offsets[1] - 500
    expect_one(shards, rf"^{shard.path}: byte {place} differs from a tar file of its blocks$", num_workers)


def test_every_flipped_bit_is_told(shards: Path) -> None:
    shard = load_manifest(str(shards)).splits["valid"].shards[0]
    sound = (shards / shard.path).read_bytes()
    for place in np.random.default_rng(0).integers(0, len(sound), 60).tolist():
        flip(shards / shard.path, place)
        expect_one(shards, f"^{shard.path}: ")
        (shards / shard.path).write_bytes(sound)


def test_a_truncated_shard(shards: Path) -> None:
    shard = first_shard(shards)
    content = (shards / shard.path).read_bytes()
    (shards / shard.path).write_bytes(content[: shard.block_offsets[1] + 100])
    expect_one(shards, f" has {shard.block_offsets[1] + 100} bytes, but its manifest says {len(content)}; build")


def test_bytes_after_a_shard(shards: Path) -> None:
    shard = first_shard(shards)
    with (shards / shard.path).open("ab") as stream:
        stream.write(b"more")
    expect_one(shards, f" has {shard.num_bytes + 4} bytes, but its manifest says {shard.num_bytes}; build")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_missing_shard(shards: Path, num_workers: int) -> None:
    shard = first_shard(shards)
    (shards / shard.path).unlink()
    told: list[str] = []
    found = verify_shards(str(shards), told.append, num_workers=num_workers)
    assert told == [f"{shard.path}: {shards}/{shard.path} does not exist; check the path"]
    assert found.notes == ["1 shards of train are unreadable, so its counts were not compared"]
    assert found.num_sketches == 400 - shard.num_sketches


def test_a_shard_in_place_of_another(shards: Path) -> None:
    first, second = load_manifest(str(shards)).splits["train"].shards[:2]
    assert first.num_bytes == second.num_bytes
    (shards / second.path).write_bytes((shards / first.path).read_bytes())
    assert problems_of(shards)
    assert all(problem.startswith(f"{second.path}: ") for problem in problems_of(shards))


def test_a_tar_file_that_the_manifest_does_not_know(shards: Path) -> None:
    (shards / "train-00007-00000.tar").write_bytes(b"")
    (shards / "notes.txt").write_text("mine")
    assert problems_of(shards) == ["train-00007-00000.tar: it is not listed in the manifest"]


def test_a_wrong_sha256(shards: Path) -> None:
    shard = first_shard(shards)
    rewrite_first_shard(shards, sha256="0" * 64)
    assert problems_of(shards) == [f"{shard.path}: its SHA-256 is {shard.sha256}, but the manifest says {'0' * 64}"]


def test_wrong_checksums_and_places(shards: Path) -> None:
    shard = first_shard(shards)
    rewrite_first_shard(shards, block_checksums=[shard.block_checksums[0] ^ 1, *shard.block_checksums[1:]])
    expect_one(shards, rf"block 0 .* is damaged: its checksum is {shard.block_checksums[0]}, but the manifest says")
    rewrite_first_shard(shards, block_checksums=shard.block_checksums, block_offsets=[shard.block_offsets[0], 10**9])
    expect_one(shards, r"block 1 \(bytes 1000000000 to \d+\) is damaged: its checksum is 0, but the manifest says")


def test_a_block_that_is_none(shards: Path) -> None:
    # The checksum matches, so the block was written this way.
    shard = first_shard(shards)
    file = shards / shard.path
    content = bytearray(file.read_bytes())
    start, size = shard.block_offsets[0], shard.block_sizes[0]
    content[start : start + size] = bytes(size)
    file.write_bytes(content)
    rewrite_first_shard(shards, block_checksums=[zlib.crc32(bytes(size)), *shard.block_checksums[1:]])
    expect_one(shards, rf"^{shard.path}: block 0 \(bytes .*\) is damaged \(")


def test_bytes_between_and_after_the_blocks(shards: Path) -> None:
    shard = first_shard(shards)
    sound = (shards / shard.path).read_bytes()
    for place in (shard.block_offsets[0] + shard.block_sizes[0], len(sound) - 1):
        flip(shards / shard.path, place)
        expect_one(shards, f"^{shard.path}: byte {place} differs from a tar file of its blocks$")
        (shards / shard.path).write_bytes(sound)


def test_another_number_of_drawings_in_a_block(shards: Path) -> None:
    split = load_manifest(str(shards)).splits["train"]
    first, last = split.shards[0], split.shards[-1]
    moved = [
        dataclasses.replace(first, num_sketches=first.num_sketches - 1),
        *split.shards[1:-1],
        dataclasses.replace(last, num_sketches=last.num_sketches + 1),
    ]
    rewrite_split(shards, "train", shards=moved)
    one, other = problems_of(shards)
    assert re.match(rf"{first.path}: block 1 .* holds 64 drawings, but the manifest says 63$", one)
    assert re.match(rf"{last.path}: block \d .* holds \d+ drawings, but the manifest says \d+$", other)


def test_an_empty_stroke(shards: Path) -> None:
    shard = load_manifest(str(shards)).splits["valid"].shards[0]
    content = (shards / shard.path).read_bytes()
    start, size = shard.block_offsets[0], shard.block_sizes[0]
    with np.load(io.BytesIO(content[start : start + size])) as archive:
        arrays = dict(archive)
    assert arrays["stroke_lengths"][:2].tolist() == [3, 1]
    arrays["stroke_lengths"][:2] = [4, 0]
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    changed = content[:start] + stream.getvalue() + content[start + size :]
    assert len(changed) == len(content)
    (shards / shard.path).write_bytes(changed)
    replaced = dataclasses.replace(
        shard, sha256=hashlib.sha256(changed).hexdigest(), block_checksums=[zlib.crc32(stream.getvalue())]
    )
    rewrite_split(shards, "valid", shards=[replaced])
    expect_one(shards, rf"^{shard.path}: block 0 .* holds an empty stroke or drawing$")


def shifted(counts: dict[Any, int]) -> dict[Any, int]:
    """Return the counts with one drawing moved to another bin."""
    first, *others = counts
    return {**counts, first: counts[first] - 1, **({others[0]: counts[others[0]] + 1} if others else {99: 1})}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: {"longest_points": 77}, "longest_points is 77, but its histograms go up to 4"),
        (lambda m: {"longest_strokes": 77}, "longest_strokes is 77, but its histograms go up to 2"),
        (lambda m: {"num_read": m.num_read + 1}, "400 drawings, 1 rejected and 0 skipped, which do not add up to"),
        (lambda m: {"sources": []}, "sources add up to 0 accepted drawings, but the manifest has 400"),
    ],
    ids=["longest-points", "longest-strokes", "num-read", "no-source"],
)
def test_a_manifest_that_contradicts_itself(
    shards: Path, change: Callable[[Manifest], dict[str, Any]], told: str
) -> None:
    rewrite(shards, **change(load_manifest(str(shards))))
    assert any(told in problem for problem in problems_of(shards))


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("categories", r"train differs from the manifest in its numbers of categories: cat: (\d+), not \d+; dog: "),
        ("points", r"train differs from the manifest in its numbers of points: 4: (\d+), not \d+; 99: 0, not 1$"),
        ("strokes", r"train differs from the manifest in its numbers of strokes: 2: (\d+), not \d+; 99: 0, not 1$"),
    ],
)
def test_wrong_counts(shards: Path, what: str, told: str) -> None:
    split = load_manifest(str(shards)).splits["train"]
    rewrite_split(shards, "train", **{what: shifted(getattr(split, what))})
    assert any(re.match(told, problem) for problem in problems_of(shards))


def test_wrong_moments(shards: Path) -> None:
    moments = load_manifest(str(shards)).moments
    wrong = dataclasses.replace(moments, sum=moments.sum + 1)
    rewrite(shards, moments=wrong, scale=wrong.standard_deviation)
    assert any("the offsets of train have the moments" in problem for problem in problems_of(shards))


def test_rejects_that_were_lost(shards: Path) -> None:
    (shards / "rejects.ndjson").write_bytes(b"")
    expect_one(shards, f"^rejects.ndjson in {shards} has 0 lines, but the manifest counts 1 rejected drawings; build")
    (shards / "rejects.ndjson").unlink()
    expect_one(shards, f"^{shards}/rejects.ndjson does not exist")


def test_key_ids_that_occur_twice(tmp_path: Path) -> None:
    # A build finds duplicates within a part, which holds all files of a category; these are two separate builds.
    for number, name in enumerate(("cat", "dog")):
        drawings = make_drawings(200, [name], first_key_id=1 + 150 * number)
        (tmp_path / name).mkdir()
        write_ndjson(tmp_path / name / f"{name}.ndjson", drawings)
        build_shards(str(tmp_path / name), str(tmp_path / f"{name}-shards"), SMALL)
    main(
        ["shards", "merge", str(tmp_path / "cat-shards"), str(tmp_path / "dog-shards"), "--out", str(tmp_path / "out")]
    )
    expect_one(
        tmp_path / "out",
        r"^50 drawings repeat an earlier key_id: (\d+ in \w+-00000-\d+.tar and \w+-00001-\d+.tar; ){3}and 47",
    )


def test_memory(built: Path) -> None:
    target = fsspec.filesystem("memory")
    for path in built.iterdir():
        target.pipe_file(f"/verified/{path.name}", path.read_bytes())
    assert problems_of("memory://verified", num_workers=0) == []
    target.rm_file("/verified/train-00000-00000.tar")
    (problem,) = problems_of("memory://verified")
    assert problem == "train-00000-00000.tar: /verified/train-00000-00000.tar does not exist; check the path"
    with pytest.raises(ConfigError, match="other processes cannot access memory://verified"):
        problems_of("memory://verified", num_workers=2)


def test_a_folder_that_cannot_be_listed(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no listing")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.ls", refuse)
    told: list[str] = []
    (note,) = verify_shards(str(built), told.append).notes
    assert told == []
    assert note.startswith("the folder cannot be listed (")


def test_without_a_manifest(shards: Path) -> None:
    (shards / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"manifest\.json does not exist"):
        problems_of(shards)


def test_a_worker_that_dies_is_told(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "check_shard", die)
    with pytest.raises(DataError, match=r"a worker process died \(signal SIGKILL\) while it read \S+\.tar"):
        problems_of(built, num_workers=2)


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_negative_workers(built: Path) -> None:
    with pytest.raises(ConfigError, match=r"workers must be 0 \(one per core\) or more, not -1"):
        problems_of(built, num_workers=-1)


def test_the_command(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["shards", "verify", str(shards), "--workers", "1"])
    assert re.fullmatch(
        rf"{shards}: no problems; \d+ shards, [\d,]+ bytes and 400 drawings read\n", capsys.readouterr().out
    )
    (shards / "more.tar").touch()
    with pytest.raises(SystemExit) as stop:
        main(["shards", "verify", str(shards), "--workers", "1"])
    assert stop.value.code == 2
    first, second = capsys.readouterr().out.splitlines()
    assert first == "more.tar: it is not listed in the manifest"
    assert second.startswith(f"{shards}: 1 problem; ")


def test_an_unknown_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["shards", "verfy"])
    assert stop.value.code == 2
    assert "unknown command 'shards verfy'; did you mean 'shards verify'?" in capsys.readouterr().err
    main(["shards"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [words[1] for words in lines if words[:1] == ["shards"]] == ["verify", "stats", "merge"]
