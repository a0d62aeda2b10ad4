"""docs/EXTENDING.md adds one of each extension to a copy of the package; its code and commands are run verbatim."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sgloc.data.manifest import Manifest, load_manifest
from tests.patience import PATIENCE

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"`([\w/]+\.\w+)`")


@dataclass
class Section:
    """The files, diffs and commands in one section of the page.

    Attributes:
        files: content of each new file, by path.
        diffs: for each changed file, the text before, the text after, and the number of added lines.
        commands: content of each bash block.
    """

    files: dict[str, str] = field(default_factory=dict)
    diffs: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def read_page() -> dict[str, Section]:
    """Return the sections of the page by title."""
    sections: dict[str, Section] = {}
    for part in (TOP / "docs" / "EXTENDING.md").read_text().split("\n## ")[1:]:
        section = sections[part.partition("\n")[0]] = Section()
        for block in _BLOCK.finditer(part):
            kind, text = block.groups()
            if kind == "bash":
                section.commands.append(text)
                continue
            path = _FILE.findall(part[: block.start()])[-1]
            if kind == "diff":
                lines = text.splitlines()
                kept = [line[1:] for line in lines if not line.startswith("+")]
                added = [line for line in lines if line.startswith("+")]
                section.diffs[path] = "\n".join(kept), "\n".join(line[1:] for line in lines), len(added)
            else:
                section.files[path] = text
    return sections


PAGE = read_page()
FORM, MODEL, METRIC, ENGINE, GRAPH = list(PAGE)[:5]
Run = Callable[..., str]


def test_each_thing_is_added_in_its_one_place() -> None:
    touched = {title: (sorted(section.files), list(section.diffs)) for title, section in PAGE.items()}
    assert touched[FORM] == (["sgloc/data/formats/xy.py"], [])
    assert {Path(name).parent for name in touched[MODEL][0]} == {Path("bigram")}
    assert touched[MODEL][1] == []
    assert touched[METRIC] == (["sgloc/evaluate/metrics/strokes.py"], [])
    assert touched[ENGINE] == (["sgloc/train/engine/decay.py"], ["sgloc/train/engine/open.py"])
    assert PAGE[ENGINE].diffs["sgloc/train/engine/open.py"][2] == 1
    assert touched[GRAPH] == ([], ["sgloc/nn/graphs.py"])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with every extension of the page, and a command `sgloc` that runs the copy."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(TOP / "sgloc", folder / "sgloc", ignore=shutil.ignore_patterns("__pycache__"))
    for section in PAGE.values():
        for name, text in section.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name, (old, new, _) in section.diffs.items():
            source = (folder / name).read_text()
            assert source.count(old) == 1, f"{name} does not contain these lines of the page exactly once: {old}"
            (folder / name).write_text(source.replace(old, new))
    command = folder / "bin" / "sgloc"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sgloc "$@"\n')
    command.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def run(project: Path) -> Run:
    """Return a function that runs a bash block of the page in the copy and returns its output."""

    def run(commands: str, code: int = 0, **environment: str) -> str:
        path = f"{project / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        place = {**os.environ, "PATH": path, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1", **environment}
        done = subprocess.run(
            ["bash", "-ec", commands],
            cwd=project,
            env=place,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def shards(project: Path, run: Run) -> Manifest:
    """The manifest of shards built from drawings in the format that the page adds."""
    (commands,) = PAGE[FORM].commands
    run(commands)
    return load_manifest(str(project / "shards" / "mine"))


def losses(folder: Path) -> list[tuple[float, ...]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    names = ("step", "loss", "points", "pen", "gradient_norm")
    return [tuple(line[name] for name in names) for line in lines if line["event"] == "train"]


def checksums(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / "checkpoints" / "step-00000006" / "manifest.json").read_text())
    return dict(manifest["files"])


@pytest.fixture(scope="module")
def trained(project: Path, run: Run, shards: Manifest) -> Path:
    """The run folder of the page's model, trained on two ranks."""
    train, _ = PAGE[MODEL].commands
    run(train)
    return project / "runs" / "bigram"


def test_a_form_of_drawings_is_read_and_what_is_no_drawing_is_counted(shards: Manifest) -> None:
    assert shards.categories == ["box", "vee"]
    assert shards.rejected == {"bad_xy": 1}
    assert shards.num_accepted == 180
    assert all(split.num_sketches for split in shards.splits.values())


def test_a_model_from_outside_trains_with_its_own_options_loss_and_pictures(trained: Path) -> None:
    options = (trained / "config.yaml").read_text()
    assert "code_size: 6" in options
    assert "pen_weight: 2.0" in options
    for _, loss, points, pen, _ in losses(trained):
        assert loss == pytest.approx(points + 2 * pen)
    assert sorted(path.name for path in (trained / "gallery").iterdir()) == [
        "step-00000003-codes.png",
        "step-00000006-codes.png",
    ]


def test_killed_and_resumed_it_is_the_same_to_the_bit(project: Path, run: Run, trained: Path) -> None:
    train, _ = PAGE[MODEL].commands
    whole = trained.rename(project / "runs" / "whole")
    run(train, code=1, SGLOC_FAILPOINT="step:kill:6")
    assert len(losses(trained)) == 5
    assert "resuming from" in run(train)
    assert losses(trained) == losses(whole)
    assert checksums(trained) == checksums(whole)


def test_its_drawings_are_used_where_the_user_names_it(project: Path, run: Run, trained: Path) -> None:
    _, generate = PAGE[MODEL].commands
    unnamed = generate.replace("--kind bigram.recipe:BigramRecipe ", "")
    assert unnamed != generate
    assert "name the kind 'bigram.recipe:BigramRecipe' yourself" in run(unnamed, code=2)
    run(generate)
    assert len((project / "drawn" / "redrawn.ndjson").read_text().splitlines()) == 2


def test_a_metric_is_measured_and_shown(project: Path, run: Run, trained: Path) -> None:
    (evaluate,) = PAGE[METRIC].commands
    assert "strokes" in run(evaluate)
    (task, *_) = json.loads((project / "evaluated" / "results.json").read_text())["tasks"]
    assert 1 <= task["given_strokes"]["value"] <= 2


def test_an_engine_takes_the_steps(project: Path, run: Run, shards: Manifest) -> None:
    (train,) = PAGE[ENGINE].commands
    assert "DDP with weight decay over gloo" in run(train)
    assert len(losses(project / "runs" / "decay")) == 6


def test_a_graph_links_strokes(project: Path, run: Run, shards: Manifest) -> None:
    (train,) = PAGE[GRAPH].commands
    run(train)
    assert "graph: first" in (project / "runs" / "first" / "config.yaml").read_text()
