"""`sgloc evaluate`: identical numbers for any number of ranks and after any interruption, and their meaning."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sgloc.cli import main
from sgloc.data.batch import Preparation
from sgloc.data.manifest import load_manifest
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.dist import Group
from sgloc.errors import ConfigError
from sgloc.evaluate.options import EvaluateOptions
from sgloc.evaluate.run import evaluate
from sgloc.hub.load import load_model
from sgloc.inference.redraw import redraw
from sgloc.inference.sketches import stroke3_of_polylines
from sgloc.inference.stroke_matching import placing_moves
from sgloc.models.sketch_a_net.load import load_classifier
from sgloc.models.sketch_a_net.recipe import SketchANetRecipe
from tests.checkpoints import make_model, save_model, single_process
from tests.commands import Said
from tests.models.classifiers import make_config
from tests.patience import PATIENCE
from tests.train.runs import train

CPU = torch.device("cpu")
TASKS = "synthesis,reorganization:0.2"


@pytest.fixture(scope="module")
def judge(picture_shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    run_dir = tmp_path_factory.mktemp("judge")
    train(make_config(picture_shards, run_dir, num_steps=2, validate_every=2), "auto", SketchANetRecipe())
    return str(run_dir)


@pytest.fixture(scope="module")
def checkpoint(picture_shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    model = make_model()
    # Otherwise the tanh would saturate at exactly 1 and many codes would be equal.
    dict(model.named_buffers())["encoder.batch_norm.running_var"].fill_(3000.0)
    return str(save_model(tmp_path_factory.mktemp("model"), picture_shards, model))


def words(checkpoint: str, shards: str, judge: str, out: Path, *others: str) -> list[str]:
    options = {"checkpoint": checkpoint, "data": shards, "classifier": judge, "out": str(out), "disturb": "0,0.2"}
    options |= {"batch_size": "7", "resamples": "50"}
    return ["evaluate", *(word for name, value in options.items() for word in (f"--{name}", value)), *others]


@pytest.fixture(scope="module")
def alone(checkpoint: str, picture_shards: str, judge: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of an evaluation by one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    main(words(checkpoint, picture_shards, judge, out))
    return out


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


# Records which part files a process opens for reading; Python imports a module named sitecustomize at startup.
WATCH_READS = """
import os, sys
def hook(event, values):
    if event == "open" and "/parts/0" in str(values[0]) and values[1] == "r":
        with open(os.path.join(os.environ["READS"], os.environ["RANK"]), "a") as stream:
            stream.write(os.path.basename(values[0]) + "\\n")
sys.addaudithook(hook)
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [pytest.param(2, id="two ranks"), pytest.param(4, id="four ranks")])
def test_ranks_give_the_same_to_the_last_digit_and_each_reads_each_part_once(
    checkpoint: str, picture_shards: str, judge: str, alone: Path, tmp_path: Path, num_processes: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH_READS)
    reads = tmp_path / "reads"
    reads.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    command = [*launcher, "-m", "sgloc", *words(checkpoint, picture_shards, judge, tmp_path / "out")]
    # The number of threads must not matter either.
    environment = {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(tmp_path), "READS": str(reads)}
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    parts = sorted(part.name for part in (tmp_path / "out/parts").iterdir())
    found = {rank.name: sorted(rank.read_text().split()) for rank in reads.iterdir()}
    assert found == {str(rank): parts for rank in range(num_processes)}
    assert (tmp_path / "out/results.json").read_bytes() == (alone / "results.json").read_bytes()
    assert (tmp_path / "out/results.md").read_bytes() == (alone / "results.md").read_bytes()
    assert (alone / "results.md").read_text().splitlines()[6] in done.stdout


def test_the_numbers_are_what_they_are_called(checkpoint: str, picture_shards: str, judge: str, alone: Path) -> None:
    """Recompute every metric sketch by sketch with the public generation, encoding and classification functions."""
    pretrained, classifier = load_model(checkpoint, CPU), load_classifier(judge, CPU)
    manifest = load_manifest(picture_shards)
    reader = ShardReader(picture_shards, manifest, "test")
    (packed,) = fixed_batches(reader, np.arange(reader.num_sketches), batch_size=100)
    found = results(alone)
    assert [one["task"] for one in found["tasks"]] == TASKS.split(",")
    for one, scale in zip(found["tasks"], (0.0, 0.2), strict=True):
        prepare = Preparation(pretrained.scale, 0, scale)
        drawn = redraw(pretrained.model, prepare(packed, CPU), pretrained.scale, max_points=pretrained.longest_points)
        gallery = pretrained.encode_polylines([sketch.original for sketch in drawn]).astype(np.float64)
        # Encode in equal batches, so that equal sketches get bit-identical codes.
        some = [number for number, sketch in enumerate(drawn) if sketch.redrawn]
        codes = np.full(gallery.shape, np.nan)
        codes[some] = pretrained.encode([stroke3_of_polylines(drawn[number].redrawn) for number in some])
        given_codes = pretrained.encode_polylines([sketch.disturbed for sketch in drawn])
        hits: list[int] = []
        given_hits: list[int] = []
        right, moved, left, count = [], [], [], 0
        for number, sketch in enumerate(drawn):
            for ranks, code in ((hits, codes[number]), (given_hits, given_codes[number])):
                order = np.argsort(np.square(code - gallery).mean(1), kind="stable").tolist()
                ranks.append(len(drawn) - 1 if np.isnan(code).any() else order.index(number))
            right.append(classifier.classify([sketch.redrawn])[0] == packed.category[number])
            points = np.concatenate([*sketch.original, [[0.0, 0.0]]])
            size = np.ptp(points, axis=0).max()
            moves = placing_moves(sketch.disturbed, sketch.redrawn)
            for now, clean, move in list(zip(sketch.disturbed, sketch.original, moves, strict=True))[1:]:
                moved.append(100 * np.linalg.norm(now[0] + move - clean[0]) / size)
                left.append(100 * np.linalg.norm(now[0] - clean[0]) / size)
            count += not sketch.redrawn
        assert one["sketches"] == len(drawn) == 40
        assert one["empty"] == count
        for at in (1, 10, 50):
            # Allow a difference of one hit, because codes are computed in different batches here.
            assert one["ret"][str(at)]["value"] == pytest.approx(np.mean(np.array(hits) < at), abs=0.026)
            assert one["given_ret"][str(at)]["value"] == pytest.approx(np.mean(np.array(given_hits) < at), abs=0.026)
        assert one["rec"]["value"] == pytest.approx(np.mean(right), abs=0.026)
        assert one["distance"]["value"] == pytest.approx(np.mean(moved), rel=0.02)
        assert one["given_distance"]["value"] == pytest.approx(np.mean(left), rel=1e-3, abs=1e-9)
        for metric in (one["rec"], one["distance"], *one["ret"].values()):
            assert metric["low"] <= metric["value"] <= metric["high"]
        by_category = one["categories"]
        assert list(by_category) == manifest.categories
        assert sum(each["sketches"] for each in by_category.values()) == 40
        mean = np.mean([each["rec"]["value"] for each in by_category.values()])
        assert mean == pytest.approx(one["rec"]["value"])
    synthesis, moved_task = found["tasks"]
    assert synthesis["given_ret"]["1"]["value"] == 1.0
    assert synthesis["given_distance"]["value"] == 0.0
    assert moved_task["given_distance"]["value"] == pytest.approx(25, rel=0.2)


def test_it_goes_on_where_it_was_stopped(
    checkpoint: str, picture_shards: str, judge: str, alone: Path, tmp_path: Path
) -> None:
    out, given = tmp_path / "out", words(checkpoint, picture_shards, judge, tmp_path / "out")
    main(given)
    parts = sorted((out / "parts").iterdir())
    assert len(parts) == 6
    whole = {part: part.read_bytes() for part in parts}
    (out / "results.json").unlink()
    # One part is missing, one truncated, one empty; the others must not be recomputed.
    parts[1].unlink()
    parts[3].write_bytes(whole[parts[3]][:-100])
    parts[4].write_bytes(b"")
    kept = {part: part.stat().st_mtime_ns for part in (parts[0], parts[2], parts[5])}
    main(given)
    assert {part: part.read_bytes() for part in parts} == whole
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert results(out)["tasks"] == results(alone)["tasks"]


def test_other_weights_shards_or_options_are_another_evaluation(
    checkpoint: str, picture_shards: str, judge: str, alone: Path, tmp_path: Path, said: Said
) -> None:
    other = str(save_model(tmp_path / "other", picture_shards, make_model(seed=1)))
    for given in (
        words(other, picture_shards, judge, alone),
        words(checkpoint, picture_shards, "", alone),
        words(checkpoint, picture_shards, judge, alone, "--seed", "1"),
        words(checkpoint, picture_shards, judge, alone, "--temperature", "0.5"),
    ):
        given = [word for pair in zip(given[1::2], given[2::2], strict=True) for word in pair if pair[1]]
        assert "holds another evaluation" in said("evaluate", *given)


def test_without_a_classifier_rec_is_not_measured(
    checkpoint: str, picture_shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = EvaluateOptions(disturb=(0.0,), count=9, resamples=10)
    with single_process():
        found = evaluate(checkpoint, picture_shards, "", str(tmp_path), options, Group())
    assert found is not None
    (task,) = found["tasks"]
    assert task["rec"] is None
    assert task["sketches"] == 9
    assert "| synthesis | 9 | - |" in (tmp_path / "results.md").read_text()


def test_an_interval_holds_what_another_half_of_the_sketches_gives(alone: Path) -> None:
    for task in results(alone)["tasks"]:
        width = task["rec"]["high"] - task["rec"]["low"]
        share = task["rec"]["value"]
        assert width == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 40), rel=0.5, abs=0.05)


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        ((0.1, -1.0), "disturb must be distances from 0 to 10"),
        ((float("nan"),), "disturb must be distances from 0 to 10"),
        ((0.1, 0.1), "disturb must be distinct distances"),
        ((), "disturb must be distances from 0 to 10"),
    ],
    ids=["negative", "no number", "twice", "none"],
)
def test_distances_that_cannot_be(distances: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluateOptions(disturb=distances)


def test_mistakes(
    checkpoint: str, picture_shards: str, tiny_shards: str, judge: str, tmp_path: Path, said: Said
) -> None:
    def fails(**changes: str) -> str:
        given = {"checkpoint": checkpoint, "data": picture_shards, "classifier": judge, "out": str(tmp_path / "out")}
        return said(
            "evaluate", *(word for name, value in {**given, **changes}.items() for word in (f"--{name}", value))
        )

    assert "was not trained on the shards" in fails(data=tiny_shards)
    assert "holds no classifier" in fails(classifier=checkpoint)
    assert "holds the model sketch_a_net, which cannot draw" in fails(checkpoint=judge)
    assert "batch_size must be from 1" in fails(batch_size="0")
    assert "holds no complete checkpoint" in fails(checkpoint=str(tmp_path))
    (tmp_path / "file").write_text("")
    assert "cannot write files to" in fails(out=str(tmp_path / "file" / "out"))


def test_options_have_ranges() -> None:
    for options in ({"count": -1}, {"resamples": 0}, {"temperature": -0.1}, {"max_points": -1}, {"seed": -1}):
        with pytest.raises(ConfigError, match=f"{next(iter(options))} must be from"):
            dataclasses.replace(EvaluateOptions(), **options)
