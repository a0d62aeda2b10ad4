"""The `sgloc checkpoint` commands, and loading exported models with `sgloc.load_pretrained`."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from sgloc import load_pretrained
from sgloc.cli import main
from sgloc.errors import CheckpointError
from sgloc.hub.export import export_model
from sgloc.hub.load import load_model
from sgloc.inference.network import Network
from sgloc.models.sketchgloc.config import Config, TrainConfig
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.train.state import TrainState
from tests.checkpoints import (
    SHARD,
    flip_bit,
    make_model,
    model_config,
    save_model,
    save_steps,
    single_process,
    step_path,
    truncate,
    without,
)
from tests.commands import Said

CPU = torch.device("cpu")


def same_weights(one: Network, other: SketchGloc) -> bool:
    theirs = other.state_dict()
    return one.config == other.config and all(
        torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items()
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 1 to 3; step 2 is the best."""
    with single_process():
        save_steps(tmp_path / "run", [1, 2, 3], best_step=2)
    return tmp_path / "run"


@pytest.fixture
def model_dir(tmp_path: Path, tiny_shards: str) -> Path:
    """A run with one checkpoint of a model that has been validated."""
    state = {"best_loss": 1.25, "best_step": 1}
    save_model(tmp_path / "model", tiny_shards, make_model("hyper"), state=state)
    return tmp_path / "model"


def printed(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    """Run a `checkpoint` command, check its exit code, and return what it printed to stdout and stderr."""
    capsys.readouterr()
    if code:
        with pytest.raises(SystemExit) as caught:
            main(["checkpoint", *map(str, words)])
        assert caught.value.code == code
    else:
        main(["checkpoint", *map(str, words)])
    streams = capsys.readouterr()
    return streams.out, streams.err


def test_list(capsys: pytest.CaptureFixture[str], run_dir: Path, model_dir: Path) -> None:
    truncate(step_path(run_dir, 3) / SHARD)
    (step_path(run_dir, 2) / "manifest.json").write_text("{")
    out, error = printed(capsys, "list", run_dir)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "step-" in line]
    assert rows == [
        ["step-00000003", "2026-01-02T03:04:05+00:00", "0.0 MiB", "1", "DDP", "none yet", "no"],
        ["step-00000002", "", "", "", "", "", "no"],
        ["step-00000001", "2026-01-02T03:04:05+00:00", "0.0 MiB", "1", "DDP", "none yet", "yes"],
    ]
    assert f"{step_path(run_dir, 3)}/{SHARD} is damaged" in error
    assert "step-00000002/manifest.json cannot be read" in error
    assert " 1.2500 " in printed(capsys, "list", model_dir)[0]


def test_list_newest_is_for_scripts(capsys: pytest.CaptureFixture[str], run_dir: Path, tmp_path: Path) -> None:
    assert printed(capsys, "list", run_dir, "--newest") == (f"{step_path(run_dir, 3)}\n", "")
    truncate(step_path(run_dir, 3) / SHARD)
    out, error = printed(capsys, "list", "--newest", run_dir)
    assert out == f"{step_path(run_dir, 2)}\n"
    assert error.startswith(f"skipping checkpoint {step_path(run_dir, 3)}: ")
    told = (
        "",
        f"sgloc checkpoint list: {tmp_path}/none does not exist; pass a run folder or one of its checkpoints/step-*\n",
    )
    assert printed(capsys, "list", tmp_path / "none", "--newest", code=2) == told
    for step in (1, 2):
        truncate(step_path(run_dir, step) / SHARD)
    out, error = printed(capsys, "list", run_dir, "--newest", code=2)
    assert (out, error.count("skipping checkpoint "), len(error.splitlines())) == ("", 3, 4)


@pytest.mark.parametrize(
    ("state", "training", "finished"),
    [
        ({"step": 8}, {"num_steps": 8}, True),
        ({"step": 7}, {"num_steps": 8}, False),
        ({"step": 7, "num_bad_validations": 3}, {"num_steps": 8, "patience": 3}, True),
        ({"step": 7, "num_bad_validations": 3}, {"num_steps": 8, "patience": 0}, False),
    ],
)
def test_list_finished_tells_whether_a_run_is_done(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tiny_shards: str,
    state: dict[str, int],
    training: dict[str, int],
    finished: bool,
) -> None:
    config = dataclasses.asdict(Config(model=model_config(), train=TrainConfig(**training)))  # type: ignore[arg-type]
    whole = dataclasses.asdict(TrainState(**state))  # type: ignore[arg-type]
    save_model(tmp_path / "run", tiny_shards, make_model(), state=whole, config=config)
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["checkpoint", "list", str(tmp_path / "run"), "--finished"])
    assert caught.value.code == (0 if finished else 1)
    out, error = printed(capsys, "list", tmp_path / "none", "--finished", code=2)
    assert out == ""
    assert "none does not exist; pass a run folder" in error


def test_verify_names_every_damaged_file(capsys: pytest.CaptureFixture[str], run_dir: Path) -> None:
    out, _ = printed(capsys, "verify", run_dir)
    assert out.count(": intact, 1 tensor files\n") == 3
    flip_bit(step_path(run_dir, 2) / SHARD, 1400)
    (step_path(run_dir, 1) / SHARD).unlink()
    out, _ = printed(capsys, "verify", run_dir, code=2)
    assert f"{step_path(run_dir, 3)}: intact" in out
    assert f"  {step_path(run_dir, 2)}/{SHARD} is damaged: its SHA-256 is" in out
    assert f"  {step_path(run_dir, 1)}/{SHARD} is missing\n" in out
    printed(capsys, "verify", step_path(run_dir, 3))
    printed(capsys, "verify", step_path(run_dir, 2), code=2)


def test_show_tells_what_is_inside(capsys: pytest.CaptureFixture[str], run_dir: Path) -> None:
    out, _ = printed(capsys, "show", step_path(run_dir, 3), "--json")
    fields = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not valid JSON"))
    assert (fields["step"], fields["state"]["best_loss"], fields["engine"]) == (3, None, "DDP")
    assert fields["tensors"]["model.weight"] == {"dtype": "F32", "shape": [2, 3], "file": SHARD}
    # For a run folder, the best checkpoint is shown.
    out, _ = printed(capsys, "show", run_dir)
    head, _, tail = out.partition("files:\n")
    text: dict[str, Any] = yaml.safe_load(head)
    assert (text["folder"], text["step"]) == (str(step_path(run_dir, 2)), 2)
    assert text["config"]["model"]["latent_size"] == 5
    assert f"  model.weight  F32 [2, 3]  in {SHARD}\n" in tail


def test_mistakes_are_told_in_a_sentence(said: Said, run_dir: Path, tmp_path: Path) -> None:
    for command in ("list", "verify"):
        assert "holds no complete checkpoint" in said("checkpoint", command, tmp_path)
    for words in (("show", tmp_path / "none"), ("export", tmp_path / "none", "--out", tmp_path / "out")):
        assert "none does not exist; pass a run folder" in said("checkpoint", *words)
    for command in ("list", "verify"):
        assert "none does not exist; pass a run folder" in said("checkpoint", command, tmp_path / "none")
    assert "did you mean 'checkpoint verify'?" in said("checkpoint", "verfy", run_dir)
    (tmp_path / "file").touch()
    assert "choose a writable folder" in said("checkpoint", "export", run_dir, "--out", tmp_path / "file" / "out")


@pytest.mark.parametrize("url", ["{}", "file://{}"], ids=["path", "url"])
def test_a_folder_inside_a_run_is_told_from_the_run(
    said: Said, capsys: pytest.CaptureFixture[str], run_dir: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, inside, step = (url.format(path) for path in (run_dir, run_dir / "checkpoints", step_path(run_dir, 2)))
    for words in ((), ("--newest",), ("--finished",)):
        for path in (inside, f"{inside}/", step, f"{step}/"):
            assert said("checkpoint", "list", path, *words).endswith(f"{path} is not a run folder; pass {run}")
    assert f"{inside} is not a run folder; pass {run}, or one of its" in said("checkpoint", "show", inside)
    monkeypatch.chdir(run_dir / "checkpoints")
    assert said("checkpoint", "list", ".").endswith(" . is not a run folder; pass ..")


def test_only_a_checkpoint_within_a_run_is_told_from_it(
    capsys: pytest.CaptureFixture[str], run_dir: Path, tmp_path: Path
) -> None:
    called_so = run_dir.rename(tmp_path / "checkpoints")
    assert printed(capsys, "list", called_so, "--newest")[0] == f"{step_path(called_so, 3)}\n"
    alone = step_path(called_so, 3).rename(tmp_path / "alone")
    assert "alone" in printed(capsys, "list", alone)[0]


@pytest.mark.parametrize("url", ["{}", "memory://{}"], ids=["disk", "memory"])
def test_an_exported_model_is_read_back(
    capsys: pytest.CaptureFixture[str], model_dir: Path, tmp_path: Path, url: str
) -> None:
    out = url.format(tmp_path / "out")
    printed(capsys, "export", model_dir, "--out", out)
    model = make_model("hyper")
    for path in (out, f"{out}/", str(model_dir), str(step_path(model_dir, 1))):
        loaded = load_pretrained(path).model
        assert not loaded.training
        assert same_weights(loaded, model)
    exported, saved = (load_model(path, CPU) for path in (out, str(model_dir)))
    assert (exported.scale, exported.longest_points) == (saved.scale, saved.longest_points)


def test_a_model_from_before_an_option_has_what_was_done_then_also_where_it_is_exported(
    tmp_path: Path, tiny_shards: str
) -> None:
    model = make_model("hyper")
    younger = ("data.origin", "model.hyper_dropout")
    for name, options in (("new", ()), ("old", younger)):
        config = without(Config(model=model.config), *options)
        save_model(tmp_path / name, tiny_shards, model, config=config)
        export_model(str(tmp_path / name), str(tmp_path / f"{name}-exported"))
    for folder in ("old", "old-exported"):
        loaded = load_pretrained(str(tmp_path / folder))
        assert (loaded.origin, loaded.model.config.hyper_dropout) == ("top_left", "both")
    for folder in ("new", "new-exported"):
        loaded = load_pretrained(str(tmp_path / folder))
        assert (loaded.origin, loaded.model.config.hyper_dropout) == ("first_point", "main")


def test_the_files_of_an_exported_model(model_dir: Path, tmp_path: Path) -> None:
    _, num_values = export_model(str(model_dir), str(tmp_path / "out"))
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    weights = safetensors.torch.load_file(out / "model.safetensors")
    assert weights.keys() == make_model("hyper").state_dict().keys()
    assert num_values == sum(tensor.numel() for tensor in weights.values())
    about = json.loads((out / "config.json").read_text())
    assert about["data"]["categories"] == 2
    assert about["training"]["best_validation_loss"] == 1.25
    card = (out / "README.md").read_text()
    for words in (
        "hyper decoder of 8",
        f"{num_values:,} values",
        "1 steps of 4 drawings",
        "out of 24 drawings of 2 categories",
        "loss on the validation drawings is 1.2500, the lowest",
        about["data"]["identity"],
        "load_pretrained",
    ):
        assert words in card, words


EXPORT_DAMAGES: dict[str, Callable[[Path], object]] = {
    r"model\.safetensors is damaged": lambda out: truncate(out / "model.safetensors"),
    r"model\.safetensors is damaged ": lambda out: (out / "model.safetensors").write_bytes(b"\xff" * 99),
    r"config\.json is damaged": lambda out: truncate(out / "config.json"),
    r"config\.json is missing": lambda out: (out / "config.json").unlink(),
    r"config\.json does not describe an exported model of version 1": lambda out: change(out, version=2),
    r"config\.json is damaged \(model, scale": lambda out: change(out, scale=0),
    r"config\.json is damaged \(About": lambda out: change(out, surprise=0),
    "holds another model: its configuration does not fit": lambda out: change(
        out, model={"kind": "sketchgloc", "latent_siz": 5}
    ),
    "belongs to another model: Missing key": lambda out: safetensors.torch.save_file(
        {"other": torch.ones(2)}, out / "model.safetensors"
    ),
}


def change(out: Path, **changes: object) -> None:
    fields = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**fields, **changes}))


@pytest.mark.parametrize("message", EXPORT_DAMAGES)
def test_a_damaged_export_is_refused(model_dir: Path, tmp_path: Path, message: str) -> None:
    export_model(str(model_dir), str(tmp_path / "out"))
    EXPORT_DAMAGES[message](tmp_path / "out")
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(str(tmp_path / "out"))


def test_an_exported_model_draws(
    capsys: pytest.CaptureFixture[str], model_dir: Path, tmp_path: Path, tiny_shards: str
) -> None:
    export_model(str(model_dir), str(tmp_path / "out"))
    drawn = []
    for checkpoint in (model_dir, tmp_path / "out"):
        folder = tmp_path / f"drawn-by-{checkpoint.name}"
        main(["generate", "--checkpoint", str(checkpoint), "--data", tiny_shards, "--count", "3", "--out", str(folder)])
        drawn.append((folder / "redrawn.ndjson").read_bytes())
    assert drawn[0] == drawn[1]


def test_importing_the_package_does_not_import_torch() -> None:
    program = "import sys; from sgloc import load_pretrained; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
