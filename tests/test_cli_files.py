"""Unusable configuration files and missing arguments: one sentence and exit code 2."""

from pathlib import Path

import pytest

from tests.commands import Said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {num_step: 3}", "did you mean 'train.num_steps'?"),
        ("model: {latent_size: 0}", "model.latent_size must be at least 1, not 0"),
        ("hello", "c.yaml contains no options"),
    ],
)
def test_bench_refuses_the_files_that_train_refuses(said: Said, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert message in said("bench", "step", "--config", tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {encodr: {hidden_size: 3}}", "did you mean 'model.encoder.hidden_size'?"),
        ("model: {encoder: {hiden_size: 3}}", "did you mean 'model.encoder.hidden_size'?"),
        ("train: {num_step: 3}", "did you mean 'train.num_steps'?"),
        ("train: {run_dir: a}", "Group 'train' does not accept option 'run_dir'; it is now train.run; see"),
        ("data: {disturb_scale: 0.1}", "it is now data.disturb; see"),
        ("tarin: {num_steps: 3}", "did you mean 'train.num_steps'?"),
        ("resum: never", "did you mean 'resume'?"),
        ("train: {num_steps: many}", "--train.num_steps: "),
        ("train: {num_steps: true}", "--train.num_steps: "),
        ("train: {num_steps: 0}\ndata: {path: s}", "train.num_steps must be at least 1, not 0"),
        ("train: {seed: null}", "train.seed has no value"),
        ("resume: null", "resume has no value"),
        ("resume: 5", "--resume: "),
        ("model:\ntrain: {seed: 3}", "model.encoder.cell has no value, or its section is not a mapping"),
        ("model: 5", "model.encoder.cell has no value, or its section is not a mapping"),
        ("model: {encoder: []}", "model.encoder.cell has no value, or its section is not a mapping"),
        ("model: {encoder: big}", "big"),
        ("model: [1, 2", "in c.yaml, line 1, column 8"),
        ("model:\n\tlatent_size: 3", "in c.yaml, line 2, column 1"),
        ("- model\n- data", "c.yaml contains no options"),
        ("hello", "c.yaml contains no options"),
        pytest.param("", "c.yaml contains no options", id="empty"),
        pytest.param("# none\n", "c.yaml contains no options", id="only-a-comment"),
        ("!!python/object/apply:os.mkdir [made]", "could not determine a constructor"),
        pytest.param(b"\xff\xfe\x80\x81", "is not text", id="not-text"),
    ],
)
def test_a_wrong_file_of_options(
    said: Said, text: str | bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in said("train", "--config", "c.yaml")
    assert list(tmp_path.iterdir()) == [tmp_path / "c.yaml"]


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        pytest.param(["reorganize"], "required: --drawing, --checkpoint, --out;", id="all"),
        pytest.param(["reorganize", "a.svg", "--out", "o"], "required: --checkpoint;", id="an option"),
        pytest.param(["checkpoint", "list"], "required: --run;", id="a word"),
        pytest.param(["checkpoint", "export", "run"], "required: --out;", id="of a subcommand"),
    ],
)
def test_what_is_missing_is_named_as_it_is_given(said: Said, command: list[str], missing: str) -> None:
    assert missing in said(*command)
