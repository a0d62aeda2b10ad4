"""Resolution of sources to files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from sgloc.data.formats.form import category_of_file
from sgloc.data.formats.sources import CATEGORIES, QUICKDRAW_URL, SourceFile, find_sources
from sgloc.errors import DataError

ENDINGS = r"\.bin, \.bin\.gz, \.ndjson, \.ndjson\.gz, \.npz, \.svg, \.svgz, \.svg\.gz, \.json or \.json\.gz"


def locations(*arguments: Any, **options: Any) -> list[str]:
    return [file.location for file in find_sources(*arguments, **options)]


def test_categories_are_the_published_ones() -> None:
    assert len(set(CATEGORIES)) == len(CATEGORIES) == 345
    assert list(CATEGORIES) == sorted(CATEGORIES)
    assert {"The Eiffel Tower", "cat", "hot dog", "zigzag"} <= set(CATEGORIES)


def test_finds_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["b.ndjson", "a.ndjson.gz", "c [1].npz", "d.bin"]
    for name in [*names, "notes.txt"]:
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "e.npz").touch()
    a, b, c, d = (str(tmp_path / name) for name in sorted(names))
    assert find_sources(str(tmp_path)) == [
        SourceFile(a, "a", None),
        SourceFile(b, "b", None),
        SourceFile(c, "c [1]", None),
        SourceFile(d, "d", None),
    ]
    assert locations(c) == [c]
    (tmp_path / "brackets [1]").mkdir()
    (tmp_path / "brackets [1]" / "f.npz").touch()
    assert locations(str(tmp_path / "brackets [1]")) == [str(tmp_path / "brackets [1]" / "f.npz")]
    assert locations([c, str(tmp_path), b]) == [a, b, c, d]
    assert locations([c, str(tmp_path), b], ["nothing of the sort"]) == [a, b, c, d]
    assert locations(str(tmp_path / "*.ndjson*")) == [a, b]
    assert locations(str(tmp_path / "**" / "*.npz")) == [
        c,
        str(tmp_path / "below" / "e.npz"),
        str(tmp_path / "brackets [1]" / "f.npz"),
    ]
    assert locations(f"file://{tmp_path}/b.ndjson") == [b]
    monkeypatch.chdir(tmp_path)
    assert locations(["b.ndjson", str(tmp_path / "b.ndjson")]) == [b]


def test_finds_urls() -> None:
    memory = fsspec.filesystem("memory")
    try:
        memory.pipe({"/quickdraw/cat.ndjson": b"", "/quickdraw/hot%20dog.npz": b""})
        assert find_sources("memory://quickdraw") == [
            SourceFile("memory:///quickdraw/cat.ndjson", "cat", None),
            SourceFile("memory:///quickdraw/hot%20dog.npz", "hot dog", None),
        ]
        assert locations("memory://quickdraw/*.npz") == ["memory:///quickdraw/hot%20dog.npz"]
        assert locations("memory://quickdraw/cat.ndjson") == ["memory://quickdraw/cat.ndjson"]
    finally:
        memory.rm("/quickdraw", recursive=True)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (lambda folder: [], "no source of drawings was given"),
        (lambda folder: "", "no source of drawings was given"),
        (lambda folder: str(folder / "cat.npz"), "cat.npz does not exist"),
        (lambda folder: str(folder / "nowhere"), "nowhere does not exist"),
        (lambda folder: str(folder / "notes.txt"), f"notes.txt does not end in {ENDINGS}"),
        (lambda folder: str(folder), f"has no file that ends in {ENDINGS}"),
        (lambda folder: [str(folder / "*")], rf"\* has no match that ends in {ENDINGS}"),
        (lambda folder: "nowhere://cat.npz", "cannot be opened .*Protocol not known"),
        (lambda folder: "quickdraw:simple", "'?quickdraw:simple.*binary, simplified, raw, npz.*'simplified'"),
        (lambda folder: "quickdraw:", "not a format of the public data set"),
    ],
    ids=[
        "no-source",
        "empty",
        "missing-file",
        "missing-folder",
        "text-file",
        "empty-folder",
        "no-match",
        "unknown-protocol",
        "unknown-form",
        "no-form",
    ],
)
def test_finds_nothing(tmp_path: Path, source: Callable[[Path], Any], fault: str) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=fault):
        find_sources(source(tmp_path))


@pytest.mark.parametrize("name", ["", "/", "/*"], ids=["folder", "with a slash", "glob"])
def test_shards_are_no_drawings(tiny_shards: str, name: str) -> None:
    # The folder contains rejects.ndjson, which has the ending of a drawing file.
    with pytest.raises(
        DataError, match="already holds shards; use them, or pass the drawings that they were built from"
    ):
        find_sources(tiny_shards + name)


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ("npz", "sketchrnn/{}.npz"),
        ("simplified", "full/simplified/{}.ndjson"),
        ("raw", "full/raw/{}.ndjson"),
        ("binary", "full/binary/{}.bin"),
    ],
)
def test_names_the_public_data_set(form: str, path: str) -> None:
    files = find_sources(f"quickdraw:{form}")
    assert [file.category for file in files] == list(CATEGORIES)
    assert [file.word for file in files] == list(CATEGORIES)
    assert files[0].location == f"{QUICKDRAW_URL}/{path.format('The%20Eiffel%20Tower')}"
    assert [category_of_file(file.location) for file in files] == list(CATEGORIES)


def test_names_only_the_wanted_categories_below_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["hot dog", "cat", "cat"]
    # The protocol is unknown, so any access to the mirror would fail.
    assert find_sources("quickdraw:raw", wanted, mirror="nowhere://there/") == [
        SourceFile("nowhere://there/full/raw/cat.ndjson", "cat", "cat"),
        SourceFile("nowhere://there/full/raw/hot dog.ndjson", "hot dog", "hot dog"),
    ]
    http = locations("quickdraw:binary", ["hot dog"], mirror="http://localhost:1/data%20set")
    assert http == ["http://localhost:1/data%20set/full/binary/hot%20dog.bin"]
    local = [str(tmp_path / "a%20b" / "sketchrnn" / "hot dog.npz")]
    monkeypatch.chdir(tmp_path)
    for mirror in (str(tmp_path / "a%20b"), "a%20b", f"a%20b{os.sep}", f"file://{tmp_path}/a%20b"):
        assert locations("quickdraw:npz", ["hot dog"], mirror=mirror) == local


def test_a_public_file_named_twice_keeps_its_word(tmp_path: Path) -> None:
    path = tmp_path / "full/binary/cat.bin"
    path.parent.mkdir(parents=True)
    path.touch()
    for sources in (["quickdraw:binary", str(path)], [str(path), "quickdraw:binary"]):
        assert find_sources(sources, ["cat"], mirror=str(tmp_path)) == [SourceFile(str(path), "cat", "cat")]


def test_public_and_other_sources_go_together(tmp_path: Path) -> None:
    (tmp_path / "dog.npz").touch()
    sources = ["quickdraw:npz", str(tmp_path / "dog.npz"), "quickdraw:binary"]
    assert find_sources(sources, ["cat"], mirror="nowhere://there") == [
        SourceFile("nowhere://there/full/binary/cat.bin", "cat", "cat"),
        SourceFile("nowhere://there/sketchrnn/cat.npz", "cat", "cat"),
        SourceFile(str(tmp_path / "dog.npz"), "dog", None),
    ]


@pytest.mark.parametrize(
    ("categories", "fault"),
    [(["cat", "aplle"], r"no category 'aplle'; did you mean 'apple'\?"), (["?"], r"no category '\?'$"), ([], "least")],
)
def test_refuses_categories_that_are_not_there(categories: list[str], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        find_sources("quickdraw:npz", categories)


@pytest.mark.parametrize(
    ("location", "category"),
    [
        ("/data/hot dog.npz", "hot dog"),
        ("cat.full.npz", "cat"),
        ("cat.ndjson.gz", "cat"),
        ("cat.bin.gz", "cat"),
        ("a%20b.ndjson", "a%20b"),
        ("https://host/a%20b.ndjson", "a b"),
        ("cat.bin.npz", "cat.bin"),
    ],
)
def test_a_file_is_named_after_a_category(location: str, category: str) -> None:
    assert category_of_file(location) == category


@pytest.mark.parametrize("source", ["of a file", "of a folder"])
def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path, source: str) -> None:
    path = tmp_path / "\udcff" / "cat.npz" if source == "of a folder" else tmp_path / "\udcff.npz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    for given in (path, path.parent):
        with pytest.raises(DataError, match="has a name that is not UTF-8; rename the file or its folder"):
            find_sources(str(given))
