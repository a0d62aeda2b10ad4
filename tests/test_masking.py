"""Secrets in URLs are used but never shown or stored."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from sgloc.data.build.plan import BuildOptions, Plan
from sgloc.data.formats.sources import SourceFile
from sgloc.doctor.finding import Finding, print_table, to_json
from sgloc.errors import DataError
from sgloc.masking import is_masked, mask
from tests.drawings import make_drawings, write_npz
from tests.patience import PATIENCE
from tests.servers import Nginx
from tests.test_program import SEVERAL
from tests.train.launch import tiny_options

_SECRET = "open-sesame"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("see https://me:open-sesame@host/a, now", "see https://***@host/a, now", id="password"),
        pytest.param("https://open-sesame@host", "https://***@host", id="token for a user"),
        pytest.param("https://me:a@open-sesame@host/x@y", "https://***@host/x@y", id="at sign in a password"),
        pytest.param("zip://a::ftp://u:open-sesame@h/b", "zip://a::ftp://***@h/b", id="chain"),
        pytest.param(
            "https://h/a?X-Amz-Signature=open-sesame&part=2", "https://h/a?X-Amz-Signature=***&part=2", id="signature"
        ),
        pytest.param("'https://h/a?sv=1&sig=open-sesame'", "'https://h/a?sv=1&sig=***'", id="quoted"),
        pytest.param("https://h/?x=open-sesame-open-sesame", "https://h/?x=***", id="long value"),
        pytest.param("s3://bucket/a@b me:open@x", "s3://bucket/a@b me:open@x", id="nothing"),
    ],
)
def test_secrets_of_urls_are_masked(text: str, shown: str) -> None:
    assert mask(text) == mask(shown) == shown
    assert str(DataError(text)) == shown
    assert is_masked(shown) == (shown != text)


def test_a_build_is_the_same_with_another_password(tmp_path: Path) -> None:
    def digest(password: str) -> bytes:
        file = SourceFile(f"https://me:{password}@host/cat.npz", "cat")
        return Plan(BuildOptions(), [[file]], [[3]], ["cat"]).digest

    assert digest(_SECRET) == digest("another")


def test_what_the_doctor_finds_is_masked() -> None:
    url = f"https://me:{_SECRET}@host"
    finding = Finding("data", "problem", f"{url} does not answer", f"see {url}")
    console = Console(record=True, width=200)
    print_table([finding], console)
    for shown in (to_json([finding]), console.export_text()):
        assert "https://***@host does not answer" in shown
        assert _SECRET not in shown


@pytest.mark.slow
def test_a_password_stands_in_no_file_and_no_output(nginx: Nginx, tiny_shards: str, tmp_path: Path) -> None:
    rows = [drawing.stroke3 for drawing in make_drawings(20, seed=0, points=5)]
    sources = tmp_path / "sources"
    sources.mkdir()
    write_npz(sources / "cat.npz", train=rows[:12], valid=rows[12:14], test=rows[14:])
    shards, source = (
        nginx.serve(folder, password=_SECRET).replace("://", f"://me:{_SECRET}@")
        for folder in (Path(tiny_shards), sources)
    )
    folder = tmp_path / "written"
    run = folder / "run"
    again = ["train", *tiny_options(run, shards), "--train.global_batch=8", "--data.cache", f"{folder}/cache"]
    commands: list[tuple[list[str], int]] = [
        (["shard", "--source", f"{source}/cat.npz", "--out", f"{folder}/built", "--workers=1"], 0),
        (["shards", "stats", shards], 0),
        (["shards", "verify", shards, "--workers=1"], 0),
        ([*again, "--train.num_steps=1"], 0),
        ([*again, "--train.num_steps=2"], 0),
        # The run keeps only the masked URL, which is unusable; the error must name the option.
        (["train", "--config", f"{run}/config.yaml"], 2),
        (["report", str(run)], 2),
        (["checkpoint", "show", str(run)], 0),
        (["checkpoint", "export", str(run), "--out", f"{folder}/model"], 0),
        (["evaluate", "--checkpoint", str(run), "--data", shards, "--out", f"{folder}/evaluated", "--count=2"], 0),
        (["report", str(run), "--data", shards, "--examples=1", "--count=4", "--debug"], 0),
        (["shards", "stats", f"{shards}/nothing"], 2),
        (["train", *again[1:], "--data.path", shards.replace("://me:", "://me:not-")], 2),
        (["bench", "ops", "--data", shards, "--batch=4", "--repeats=1", "--json"], 0),
    ]
    words, codes = tmp_path / "words", tmp_path / "codes"
    words.write_text(json.dumps([line for line, _ in commands]))
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, words, codes],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = done.stdout + done.stderr
    assert json.loads(codes.read_text()) == [code for _, code in commands], said
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert [str(path) for path in written if _SECRET.encode() in path.read_bytes()] == []
    assert _SECRET not in said
    kept = yaml.safe_load((run / "config.yaml").read_text())["data"]["path"]
    assert kept == mask(shards)
    assert "data.path is 'http://***@127.0.0.1" in said
    assert "a URL whose credentials are not stored in the run; pass the folder or URL of the shards" in said
