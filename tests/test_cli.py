"""The command line reports every user error in one sentence and exits with code 2."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sgloc.cli import main
from tests.checkpoints import SHARD, change_manifest, flip_bit, step_path, truncate
from tests.commands import Said, only_sentence
from tests.drawings import make_drawings, write_ndjson
from tests.patience import PATIENCE

TINY = {
    "model": {
        "encoder": {"cell": "lstm", "hidden_size": 4},
        "decoder": {"cell": "lstm", "hidden_size": 6, "num_mixtures": 2},
        "latent_size": 5,
    },
    "train": {"num_steps": 2, "global_batch": 4, "checkpoint_every": 1, "validate_every": 9, "device": "cpu"},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_shards: str) -> str:
    """A configuration file."""
    path = tmp_path_factory.mktemp("options") / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "data": {"path": tiny_shards}}))
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Path:
    """A run of two steps with a checkpoint of each; read-only."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    main(["train", "--config", tiny, "--train.run", str(run_dir)])
    return run_dir


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def shards(tiny_shards: str, tmp_path: Path) -> Path:
    """A copy of the shards that a test may damage."""
    return Path(shutil.copytree(tiny_shards, tmp_path / "shards"))


# Real processes.


@pytest.mark.parametrize("words", [["--help"], ["doctor", "--help"], ["checkpoint", "show", "{}"]])
def test_a_reader_that_has_seen_enough_is_no_error(trained: Path, words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    # An empty value leaves buffering on: output is flushed when the buffer is full or the process ends.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-m", "sgloc", *(word.format(trained) for word in words)]
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            command, env=environment, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_another_pipe_that_breaks_is_told(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_pipe(run_dir: str) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("sgloc.train.checkpoint.load.list_checkpoints", break_pipe)
    assert "Broken pipe; check the network" in said("checkpoint", "list", "run", code=1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "sgloc: unknown command 'trian'; did you mean 'train'?; see `sgloc --help`"),
        (["train", "--config", "{}/none.yaml"], "sgloc train: --config is '{}/none.yaml', which does not exist; see"),
        (["train", "--data.path", "{}/none"], "sgloc train: {}/none/manifest.json does not exist; give a folder that"),
        (
            ["generate", "--checkpoint", "{}/none", "--data", "{}", "--out", "{}"],
            "sgloc generate: {}/none does not exist; pass a run folder or one of its checkpoints/step-*",
        ),
    ],
)
def test_a_real_process_says_one_sentence_and_exits_with_2(tmp_path: Path, words: list[str], sentence: str) -> None:
    command = [sys.executable, "-m", "sgloc", *(word.format(tmp_path) for word in words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert only_sentence(outcome.stderr, words[0]).startswith(sentence.format(tmp_path))
    assert list(tmp_path.iterdir()) == []


# Commands and options.


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("shrad", "unknown command 'shrad'; did you mean 'shard'?"),
        ("xyz", "unknown command 'xyz'; see"),
        ("shard --sorce a --out b", "did you mean --source?"),
        ("shard --out b", "required: --source;"),
        ("shard --source a", "required: --out"),
        ("shard --source a --out b --sketches_per_shard many", "sketches_per_shard"),
        ("shard --source a --out b --sketches_per_block 0", "sketches_per_block must be at least 1, not 0"),
        ("shard --source a --out b --per_category -1", "per_category must be at least 0, not -1"),
        ("shard --source a --out b --compression gzip", "compression must be none or zstd, not 'gzip'"),
        ("shard --source a --out b --recognised_only", "did you mean --recognized_only?"),
        ("shard --source quickdraw:binary --out b --workers -2", "workers must be 0 (one per core) or more, not -2"),
        (
            "shard --source quickdraw:binary --out b --task 3",
            "task is '3'; pass the task's number and the number of tasks",
        ),
        ("shard --source quickdraw:binary --out b --task 3/3", "task must be from 0/3 to 2/3, not 3/3"),
        (
            "shard --source a --out b --task 0/3 --overwrite",
            "--task with --overwrite would overwrite the other tasks' parts",
        ),
        ("shard --source quickdraw:svg --out b", "quickdraw:svg is not a format of the public data set"),
        ("shard --source quickdraw:npz --out b --categories cat,dgo", "QuickDraw has no category 'dgo'; did you mean"),
        ("shard --source quickdraw:npz --out b --mirror none://x", "mirror is 'none://x', which is unusable"),
        ("shard --source quickdraw:npz --out b --mirror=", "mirror is not set"),
        ("shard --source quickdraw:npz --out b --downloads memory://x", "downloads need a local folder"),
        ("shard --source quickdraw:npz --out memory://b --keep_downloads", "kept in a temporary folder"),
        ("sample --out b --train 1.5", "--train: "),
        ("sample --out b --train -1", "num_train of the synthetic sample is -1"),
        ("generate --checkpiont a --data b --out c", "did you mean --checkpoint?"),
        ("generate --checkpoint a --data b --out c --task copy", "unknown option --task; it is now --disturb; see"),
        (
            "evaluate --checkpoint a --data b --out c --tasks synthesis",
            "unknown option --tasks; it is now --disturb; see",
        ),
        ("train --train.run_dir a", "unknown option --train.run_dir; it is now --train.run; see"),
        ("train --data.disturb-scale 0.1", "unknown option --data.disturb_scale; it is now --data.disturb; see"),
        ("bench checkpoint --folder a", "unknown option --folder; it is now --out; see"),
        ("doctor --run_dir a", "unknown option --run_dir; it is now --run; see"),
        ("evaluate --checkpoint a --data b --out c --split tests", "'train', 'valid', 'test'"),
        ("generate --checkpoint a --data b --out c --count 0", "count must be from 1"),
        (
            "generate --checkpoint a --data b --out c --rows first",
            "rows must be some of original, disturbed, put_back, redrawn",
        ),
        ("generate --checkpoint a --data b --out c --temperature hot", "--temperature: "),
        ("bench xyz", "unknown command 'bench xyz'"),
        ("bench steps", "unknown command 'bench steps'; did you mean 'bench step'?"),
        ("bench ops --remote a", "bench ops: unknown option --remote"),
        ("bench retrieval --data shards", "bench retrieval: unknown option --data"),
        ("bench ops --dat shards", "did you mean --data?"),
        ("bench ops --batch 1", "batch must be from 2 to 1,000,000, not 1"),
        ("bench step --batch many", "--batch: "),
        ("bench step --repeats -1", "repeats must be from 1"),
        ("bench stream --data sgloc-no-shards", "sgloc-no-shards/manifest.json does not exist; give a folder that"),
        (
            "bench step --data sgloc-no-shards --json",
            "sgloc-no-shards/manifest.json does not exist; give a folder that",
        ),
        ("bench stream --data=", "data is not set; pass a folder or URL"),
        ("bench step --config none.yaml", "sgloc bench step: --config is '{}/none.yaml', which does not exist; see"),
        ("train --model.latent_siz 3", "did you mean --model.latent_size?"),
        ("train --model.encodr.hidden_size 3", "did you mean --model.encoder.hidden_size?"),
        ("train --modle.encoder.hidden_size 3", "did you mean --model.encoder.hidden_size?"),
        ("train --resum never", "did you mean --resume?"),
        ("train --train.num_steps", "--train.num_steps needs a value"),
        ("train stray", "unrecognized argument: stray"),
        (
            "train --model shards/x",
            "--model is a section of options; set one of its options, such as --model.encoder.cell",
        ),
        (
            "train --model.encoder=big",
            "--model.encoder is a section of options; set one of its options, such as --model.enc",
        ),
        ("train --train.num_steps many", "--train.num_steps: "),
        ("train --train.num_steps 1.5", "--train.num_steps: "),
        ("train --model.encoder.cell gru", "--model.encoder.cell: "),
        ("train --loss.pen_loss_on_padding=maybe", "--loss.pen_loss_on_padding: "),
        ("train --loss.pen_loss_on_padding maybe", "unrecognized argument: maybe"),
        ("train --data.path s --train.num_steps 0", "train.num_steps must be at least 1, not 0"),
        ("train --data.path s --model.latent_size -3", "model.latent_size must be at least 1, not -3"),
        (
            "train --data.path s --optimizer.min_learning_rate 1",
            "min_learning_rate must be from 0 to the learning rate",
        ),
        ("train --data.path s --train.validate_every often", "at least 1, or epochs as in \"1 epoch\", not 'often'"),
        ("train --data.path s --train.validate_every 1.5", "at least 1, or epochs as in \"1 epoch\", not '1.5'"),
        ("train", "data.path is not set"),
        ("train --config none.yaml", "sgloc train: --config is '{}/none.yaml', which does not exist; see"),
        ("train --config .", "sgloc train: --config is '{}/.', which is not a file; see"),
    ],
)
def test_a_wrong_command_or_option(
    said: Said, line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message.format(tmp_path) in said(*line.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["s3", "s3a", "gs", "gcs", "simplecache::s3"])
def test_the_url_of_a_bucket_holds_no_password(said: Said, scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}://me:open-sesame@bucket/x"
    for command in (
        ["shards", "verify", url],
        ["shard", "--source", url, "--out", tmp_path],
        ["train", "--data.path", url],
        ["reorganize", url, "--checkpoint", "c", "--out", tmp_path],
    ):
        sentence = said(*command)
        assert "://***@bucket/x', but a bucket URL cannot contain a user and password" in sentence
        assert "open-sesame" not in sentence


def test_a_mistake_on_the_command_line_is_told_once_a_machine_under_torchrun(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "5")
    for local_rank, count in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        with pytest.raises(SystemExit):
            main(["train", "--model.latent_siz", "3"])
        assert capsys.readouterr().err.count("did you mean --model.latent_size?") == count


@pytest.mark.parametrize("words", [["traim"], ["train", "--model.latent_siz", "3"]], ids=["command", "option"])
def test_a_rank_without_a_launcher_tells_its_mistakes(
    said: Said, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert "did you mean" in said(*words)


def test_a_half_set_environment_is_told(said: Said, monkeypatch: pytest.MonkeyPatch, tiny: str) -> None:
    monkeypatch.setenv("RANK", "1")
    assert "LOCAL_RANK is not set although" in said("train", "--config", tiny)


# Paths and URLs.


@pytest.mark.parametrize(
    ("place", "reason"), [("none://x", "Protocol not known"), ("gs://bucket/x", "install gcsfs"), ("", "is not set")]
)
def test_a_place_that_cannot_be_is_told(
    said: Said, place: str, reason: str, tiny: str, tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    good = {"--checkpoint": tmp_path, "--data": tiny_shards, "--out": tmp_path / "out"}
    for name in good:
        words = [word for pair in {**good, name: place}.items() for word in pair]
        assert reason in said("generate", *words)
    assert reason in said("sample", "--out", place)
    assert reason in said("shard", "--source", tmp_path, "--out", place)
    assert reason in said("train", "--config", tiny, "--data.path", place)
    assert reason in said("train", "--config", tiny, "--train.run", place)
    assert reason in said("train", "--config", tiny, "--resume", place)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(
    said: Said, tiny: str, tiny_shards: str, trained: Path, tmp_path: Path
) -> None:
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(60))
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for out in (taken, taken / "deeper"):
        assert "cannot write to" in said("train", "--config", tiny, "--train.run", out)
        assert "cannot write files to" in said("generate", "--checkpoint", trained, "--data", tiny_shards, "--out", out)
        assert "cannot write shards" in said("shard", "--source", tmp_path / "cat.ndjson", "--out", out)
        assert str(taken) in said("sample", "--out", out, "--train", 1)
    assert taken.read_text() == "a file"


def test_a_run_is_found_from_every_folder(
    said: Said, tiny: str, tiny_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shards").symlink_to(tiny_shards)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    main(["train", "--config", tiny, "--data.path", "shards", "--train.run", "run", "--train.num_steps", "1"])
    monkeypatch.chdir(tmp_path / "elsewhere")
    kept = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (kept["data"]["path"], kept["train"]["run"]) == (str(tmp_path / "shards"), str(tmp_path / "run"))
    main(["report", "../run", "--examples", "1", "--count", "4", "--device", "cpu"])
    assert (tmp_path / "run/report.html").exists()
    # Resuming the same config file from another folder continues the same run.
    main(["train", "--config", str(tmp_path / "run/config.yaml"), "--train.num_steps", "2"])
    assert step_path(tmp_path / "run", 2).exists()
    (tmp_path / "shards").unlink()
    told = said("report", "../run")
    assert f"../run was trained on the shards {tmp_path}/shards, which cannot be read here ({tmp_path}/sh" in told
    assert told.endswith("; pass a copy of them or other shards (data)")


# Shards.


def for_each_shard(shards: Path, spoil: Callable[[Path], None]) -> None:
    for path in shards.glob("*.tar"):
        spoil(path)


# Possibly transient, hence exit code 1: the shard may be unreachable or garbled only for the moment.
PASSING = ("does not exist; check the path", "is damaged (")
SHARD_DAMAGES: dict[str, Callable[[Path], None]] = {
    "is of format version 9": lambda shards: change_manifest(shards, lambda fields: fields.update(version=9)),
    "cannot be read as a manifest": lambda shards: truncate(shards / "manifest.json"),
    "is malformed": lambda shards: change_manifest(shards, lambda fields: fields.pop("splits")),
    "is not a manifest of sgloc-shards": lambda shards: change_manifest(shards, dict.clear),
    "does not exist; give a folder that `sgloc shard` wrote": lambda shards: (shards / "manifest.json").unlink(),
    "does not exist; check the path": lambda shards: for_each_shard(shards, Path.unlink),
    "is damaged (": lambda shards: for_each_shard(shards, lambda path: os.truncate(path, 700)),
}


@pytest.mark.parametrize("message", SHARD_DAMAGES)
def test_shards_that_cannot_be_used(
    said: Said,
    message: str,
    shards: Path,
    tiny: str,
    trained: Path,
    tmp_path: Path,
) -> None:
    SHARD_DAMAGES[message](shards)
    assert message in said("generate", "--checkpoint", trained, "--data", shards, "--out", tmp_path / "out")
    new = ("--data.path", shards, "--train.run", tmp_path / "new", "--resume", "never")
    assert message in said("train", "--config", tiny, *new, code=1 if message in PASSING else 2)


# Checkpoints.

DAMAGES: dict[str, Callable[[Path], None]] = {
    "is damaged": lambda folder: flip_bit(folder / SHARD, 4321),
    "is damaged:": lambda folder: truncate(folder / SHARD),
    "is missing": lambda folder: (folder / SHARD).unlink(),
    "cannot be read": lambda folder: truncate(folder / "manifest.json"),
    "is malformed": lambda folder: change_manifest(folder, lambda fields: fields.pop("scale")),
    "checkpoint version 9": lambda folder: change_manifest(folder, lambda fields: fields.update(version=9)),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_checkpoint(
    said: Said, message: str, run_dir: Path, tiny: str, tiny_shards: str, tmp_path: Path
) -> None:
    folder = step_path(run_dir, 2)
    DAMAGES[message](folder)
    generate = ("generate", "--data", tiny_shards, "--out", tmp_path / "out", "--checkpoint")
    assert message in said(*generate, folder)
    new = ("--train.run", tmp_path / "new")
    assert message in said("train", "--config", tiny, *new, "--resume", folder)
    (folder / "manifest.json").unlink(missing_ok=True)
    assert "holds no complete checkpoint" in said(*generate, folder)
    assert "holds no intact checkpoint" in said("train", "--config", tiny, *new, "--resume", folder)
    assert not (tmp_path / "new").exists()


def test_a_run_whose_checkpoints_are_all_damaged(
    capsys: pytest.CaptureFixture[str], run_dir: Path, tiny: str, tiny_shards: str, tmp_path: Path
) -> None:
    for step in (1, 2):
        truncate(step_path(run_dir, step) / SHARD)
    generate = ["generate", "--checkpoint", str(run_dir), "--data", tiny_shards, "--out", str(tmp_path / "out")]
    train = ["train", "--config", tiny, "--train.run", str(run_dir)]
    for words, message in ((generate, "is intact; all 2 are damaged"), (train, "none of the 2 checkpoints in")):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(words)
        error = capsys.readouterr().err
        assert caught.value.code == 2
        # The skipped checkpoints are reported first.
        assert error.count("skipping checkpoint ") == 2
        assert message in only_sentence(error.splitlines()[-1], words[0])


def test_a_run_is_not_resumed_as_another(said: Said, run_dir: Path, tiny: str) -> None:
    here = ("train", "--config", tiny, "--train.run", run_dir)
    sentence = said(*here, "--model.latent_size", 6)
    assert "belongs to another run: it has model.latent_size = 5, this run 6" in sentence
    assert "which resume 'never' would overwrite" in said(*here, "--resume", "never")
    assert "has a newer checkpoint than" in said(*here, "--resume", step_path(run_dir, 1))


def test_a_store_without_credentials_is_told(said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    told = said("checkpoint", "list", "s3://sgloc-no-such-bucket/run")
    assert "the store cannot be used (NoCredentialsError: Unable to locate credentials); check the URL, the cre" in told
