"""Commands that work on shards start fast and stay small: neither they nor their workers import torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sgloc.cli import COMMANDS as ALL_COMMANDS
from tests.patience import PATIENCE

# Every command that writes or reads complete shards, all in one process; each build has its own workers.
COMMANDS = """
from sgloc.cli import main
main("sample --out npz --train 8 --valid 2 --test 2".split())
main("shard --source npz --out one --workers 2".split())
main("shard --source npz/cat.npz --out two --compression zstd".split())
main("shards verify one --workers 2".split())
main("shards stats one --json".split())
main("shards merge two --out three".split())
"""


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment in which neither torch nor webdataset can be imported."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("torch", "webdataset"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} must not be imported')")
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_no_command_of_shards_and_no_worker_imports_torch(bare: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tmp_path,
        env=bare,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "one: no problems" in done.stdout
    assert (tmp_path / "three" / "manifest.json").exists()


def test_the_package_itself_is_light(bare: dict[str, str]) -> None:
    command = "import sgloc, sgloc.cli, sys; print(*sorted({'torch', 'numpy', 'fsspec'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", command], env=bare, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.strip() == ""


HELP = """
import contextlib, sys
from sgloc.cli import COMMANDS, main

main(["--help"])
assert not {"torch", "numpy"} & set(sys.modules)
for name in COMMANDS:
    with contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
"""


def test_help_is_light(bare: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP], env=bare, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--model.graph" in done.stdout
    assert done.stdout.count("usage: sgloc ") == len(ALL_COMMANDS) + 1
