"""`sgloc shard`: sources with unexpected content, and what the build reports."""

import json
from pathlib import Path

import pytest

from sgloc.cli import main
from tests.commands import Said
from tests.drawings import make_drawings, write_ndjson

SOURCES: dict[str, tuple[bytes, str]] = {
    "none.ndjson": (b"", "is empty; download it again"),
    "none.npz": (b"", "is empty; download it again"),
    "page.npz": (b"<!DOCTYPE html><html><body>404</body></html>", "does not start with the zip magic bytes"),
    "cut.npz": (b"PK\x03\x04" + bytes(60), "cannot be read (BadZipFile"),
    "odd.ndjson": (
        b"not json\n{}\n",
        "all 2 drawings were rejected or skipped (rejected: 1 malformed_json, 1 missing_field); the first: ",
    ),
    "odd.ndjson.gz": (b"not gzip", "cannot be read (BadGzipFile"),
    "cat.txt": (b"x", "does not end in .bin, .bin.gz, .ndjson"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_that_is_not_what_it_claims_to_be(said: Said, name: str, tmp_path: Path) -> None:
    content, message = SOURCES[name]
    (tmp_path / name).write_bytes(content)
    sentence = said("shard", "--source", tmp_path / name, "--out", tmp_path / "out")
    assert message in sentence
    assert not (tmp_path / "out/manifest.json").exists()


def test_where_all_is_rejected_it_is_said_why(said: Said, tmp_path: Path) -> None:
    (tmp_path / "cat.ndjson").write_text('{"word": "cat"}\n7\n[]\nx\n')
    words = ("shard", "--source", tmp_path / "cat.ndjson", "--out", tmp_path / "out", "--workers", "1")
    rejects = tmp_path / "out" / "rejects.ndjson"
    for _ in range(2):
        sentence = said(*words)
        assert "the first: cat.ndjson 1: missing_field, key_id, drawing; cat.ndjson 2: malformed_json, " in sentence
        assert sentence.endswith(f"; {rejects} lists all of them")
        assert [json.loads(line)["place"] for line in rejects.read_text().splitlines()] == ["1", "2", "3", "4"]
        assert list((tmp_path / "out").iterdir()) == [rejects]
    assert "no drawing of category 'cat'; the first rejects: cat.ndjson 1: missing_field" in said(
        *words, "--categories", "cat"
    )
    # A rejected source does not block a later build from a good one.
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(60, ["cat"]))
    main([str(word) for word in words])
    assert rejects.read_bytes() == b""


def test_sources_and_categories_that_are_not_there(said: Said, tiny_shards: str, tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(60, ["cat"]))
    assert "does not exist" in said("shard", "--source", tmp_path / "dog.ndjson", "--out", tmp_path / "out")
    words = ("shard", "--source", tmp_path, "--out", tmp_path / "out", "--categories", "cta")
    assert "the source has no drawing of category 'cta'; did you mean 'cat'?" in said(*words)
    assert "already holds shards" in said("shard", "--source", tmp_path, "--out", tiny_shards)


def test_a_truncated_line_is_a_reject_that_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(60, ["cat"]))
    content = (tmp_path / "cat.ndjson").read_bytes()
    (tmp_path / "cat.ndjson").write_bytes(content[:-20])
    main(["shard", "--source", str(tmp_path / "cat.ndjson"), "--out", str(tmp_path / "out")])
    assert "read 60 drawings in 1 categories" in (out := capsys.readouterr().out)
    assert out.endswith("rejected: 1 malformed_json\n")


def test_tasks_of_one_build(capsys: pytest.CaptureFixture[str], said: Said, tmp_path: Path) -> None:
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(60, ["cat"]))
    words = ["shard", "--source", str(tmp_path / "cat.ndjson"), "--out", str(tmp_path / "out"), "--workers", "2"]
    main([*words, "--task", "1/2"])
    expected = "task 1/2 finished; parts still to be built by other tasks: 1\n"
    assert capsys.readouterr().out == f"{tmp_path}/out: {expected}"
    assert "unfinished build of other sources or with other options" in said(*words, "--recognized_only")
    main([*words, "--task", "0/2"])
    assert "read 60 drawings in 1 categories" in capsys.readouterr().out
    assert "already holds shards" in said(*words)
