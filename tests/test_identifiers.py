"""Test ids are plain words, the same in every process, at any time and in any folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.identifiers import name_parameter

ROOT = Path(__file__).parents[1]
WORDS = re.compile(r"tests/[\w/]+\.py(::\w+)+(\[[\w .+-]{1,100}\])?", flags=re.ASCII)


def collect(folder: Path) -> list[str]:
    """Collect the tests of a folder in a process with another hash seed and time zone."""
    environment = os.environ | {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "--quiet",
        "--numprocesses=0",
        "-p",
        "no:cacheprovider",
    ]
    process = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert process.returncode == 0, process.stdout
    return [line for line in process.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_another_process_in_another_folder_collects_the_same_words(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Collect the tests again, seconds later, and compare with those of this run, which are all under `make test`."""
    for name in ("tests", "sgloc", "launch", "benchmarks", "configs", "slurm", "docs", "examples"):
        # Other processes may be writing compiled modules at the same time.
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pyc.*"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    # xdist appends "@" and the group to a test's id.
    here = [item.nodeid.partition("@")[0] for item in request.session.items]
    there = collect(tmp_path)
    assert [name for name in there if not WORDS.fullmatch(name)] == []
    assert len(there) == len(set(there)) > 2000
    assert here == [name for name in there if name in set(here)]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("plain", "plain"),
        ("train --data.path s", "train-data.path-s"),
        ("-1 of 2", "-1-of-2"),
        ("\N{ARABIC-INDIC DIGIT THREE} or 3?", "or-3"),
        ("", "empty"),
        ("no more than forty characters are shown here", "no-more-than-forty-characters-are-shown"),
        ("a" * 90, "a" * 40),
        (1.5, None),
        (None, None),
        ([1], None),
        (len, None),
    ],
    ids=[
        "word",
        "words",
        "minus",
        "other-digits",
        "empty",
        "long",
        "one-long-word",
        "number",
        "none",
        "list",
        "function",
    ],
)
def test_a_parameter_is_named_by_its_words(value: object, words: str | None) -> None:
    assert name_parameter(value, "argument") == words


@pytest.mark.parametrize(
    "value", [b"US", "{}", lambda: 0, ROOT, f"{ROOT}/x.json"], ids=["bytes", "sign", "lambda", "path", "text-of-a-path"]
)
def test_a_parameter_without_a_name_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"argument .*; name it with ids= or pytest\.param\(\.\.\., id=\.\.\.\)$"):
        name_parameter(value, "argument")
