"""DeepSpeed: its JSON file, and runs that switch between DeepSpeed and DistributedDataParallel."""

import json
import sys
from pathlib import Path

import pytest

from sgloc.config import OptimizerConfig
from sgloc.errors import ConfigError
from sgloc.models.sketchgloc.config import Config, TrainConfig
from sgloc.train.engine.deepspeed_options import Options, fill_in, read_options
from tests.commands import Said
from tests.train.engine_job import CONFIGS, ENGINES
from tests.train.launch import records, run

CONFIG = Config(
    optimizer=OptimizerConfig(learning_rate=0.002, clip_norm=1.5), train=TrainConfig(global_batch=33, accumulation=2)
)


def read(path: Path, options: object) -> Options:
    path.write_text(options if isinstance(options, str) else json.dumps(options))
    return read_options(str(path), CONFIG, 2)


@pytest.mark.parametrize("path", ENGINES[1:], ids=["zero0", "zero1", "zero2", "zero3"])
def test_the_files_that_come_along_can_be_used(path: str) -> None:
    chosen = read_options(path, CONFIG, 2)
    assert chosen["stage"] == int(Path(path).stem[-1])
    assert chosen["overlap_comm"] is False


def test_what_is_not_given_is_filled_in(tmp_path: Path) -> None:
    zero = {"stage": 2, "reduce_bucket_size": 5e6, "overlap_comm": True}
    filled = fill_in(read(tmp_path / "x.json", {"zero_optimization": zero}), CONFIG, 2)
    assert (
        filled["zero_optimization"].items()
        >= {"stage": 2, "reduce_bucket_size": 5_000_000, "overlap_comm": True}.items()
    )
    assert filled["gradient_clipping"] == 1.5
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert [filled[name] for name in sizes] == [34, 17, 1]
    assert read(tmp_path / "x.json", {})["stage"] == 0


def test_what_says_the_same_as_the_configuration_may_stay(tmp_path: Path) -> None:
    options = {
        "train_batch_size": 33,
        "train_micro_batch_size_per_gpu": 9,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": "auto",
        "optimizer": {"type": "Adam", "params": {"lr": 0.002, "eps": 1e-8}},
        "bf16": {"enabled": False, "check_grad_overflow": True},
        "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "none"}},
    }
    assert read(tmp_path / "x.json", options) == {"stage": 3, "overlap_comm": False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_clipping": 5.0}, r"gradient_clipping = 5.0 in .*x.json, but optimizer.clip_norm = 1.5; remove"),
        ({"train_batch_size": 64}, "train_batch_size = 64 in .*, but train.global_batch = 33; remove the field"),
        ({"train_micro_batch_size_per_gpu": 8}, "train.global_batch = 33 and train.accumulation = 2 make it 9 on 2"),
        ({"gradient_accumulation_steps": True}, "gradient_accumulation_steps = true in .*, but train.accumulation = 2"),
        ({"optimizer": {"type": "AdamW"}}, "AdamW.*but the optimizer is Adam with optimizer.learning_rate = 0.002"),
        ({"optimizer": {"params": {"lr": 0.1}}}, "but the optimizer is Adam with optimizer.learning_rate = 0.002"),
        ({"scheduler": {"type": "WarmupLR"}}, "but the learning rate follows optimizer.learning_rate_decay"),
        ({"fp16": {"enabled": True}}, 'fp16 = {"enabled": true} in .*, but train.precision = float32'),
        ({"communication_data_type": "bf16"}, "but gradients are summed in float32"),
        (
            {"zero_optimization": {"offload_param": {"device": "cpu"}}},
            "zero_optimization.offload_param = .*on the device",
        ),
        ({"checkpoint": {}}, "checkpoint in .* is not one of the fields that can be set: .*stage, .*overlap_comm$"),
        ({"zero_optimization": {"allgather_partitions": True}}, "allgather_partitions in .*overlap_comm$"),
        ({"zero_optimization": {"stge": 1}}, r"stge in .* is not one .*; did you mean 'zero_optimization\.stage'\?$"),
        ({"stage": 1}, r"^stage in .* is not one of the fields .*; did you mean 'zero_optimization\.stage'\?$"),
        ({"zero_optimisation": {"stage": 1}}, r"^zero_optimisation in .*; did you mean 'zero_optimization'\?$"),
        ({"gradient_clip": 1.5}, r"^gradient_clip in .*; did you mean 'gradient_clipping'\?$"),
        ({"zero_optimization": 2}, "zero_optimization in .* must be an object"),
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage in .* must be 0, 1, 2 or 3, not 4"),
        ({"zero_optimization": {"stage": "2"}}, 'must be a whole number, not "2"'),
        ({"zero_optimization": {"stage": True}}, "must be a whole number, not true"),
        ('{"zero_optimization": {"sub_group_size": 1e999}}', "must be a whole number, not Infinity"),
        ({"zero_optimization": {"reduce_bucket_size": 0}}, "must be at least 1, not 0"),
        ({"zero_optimization": {"allgather_bucket_size": 3}}, "must be even, not 3"),
        (
            {"zero_optimization": {"overlap_comm": 1}},
            "zero_optimization.overlap_comm in .* must be true or false, not 1",
        ),
        ([], r"must contain an object, not \[\]"),
        ("{", "is not JSON"),
    ],
    ids=[
        "gradient-clipping",
        "train-batch-size",
        "micro-batch",
        "accumulation-true",
        "adamw",
        "learning-rate",
        "scheduler",
        "fp16",
        "communication",
        "offload",
        "checkpoint",
        "allgather-partitions",
        "stage-misspelt",
        "stage-outside",
        "section-misspelt",
        "clipping-misspelt",
        "section-number",
        "stage-4",
        "stage-text",
        "stage-true",
        "infinity",
        "bucket-0",
        "bucket-odd",
        "overlap-1",
        "list",
        "cut-off",
    ],
)
def test_what_cannot_be_is_refused(options: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "x.json", options)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "binary.json", "nowhere://x.json"):
        with pytest.raises(ConfigError, match=r"cannot read .*; train.deepspeed must name a JSON file"):
            read_options(str(path), CONFIG, 2)


def test_without_deepspeed_it_is_said_how_to_get_it(
    said: Said, sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    words = ["--data.path", sample_shards, "--train.run", tmp_path / "run", "--train.device", "cpu"]
    message = said("train", *words, "--train.deepspeed", CONFIGS / "zero1.json")
    assert "run pip install 'sgloc[deepspeed]', or leave train.deepspeed empty" in message


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in records(run_dir)]


def test_runs_change_engine_and_number_of_ranks_and_skip_steps(
    sample_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs swap engine and world size midway and still agree; both skip a step whose loss is not finite."""
    monkeypatch.setenv("SGLOC_FAILPOINT", "loss:hit:5")
    zero1, zero3 = (["--train.deepspeed", str(CONFIGS / f"zero{stage}.json")] for stage in (1, 3))
    first, second = tmp_path / "first", tmp_path / "second"
    run(first, sample_shards, 2, "--train.num_steps", "8", *zero3)
    run(second, sample_shards, 1, "--train.num_steps", "8")
    for run_dir in (first, second):
        assert [line["skipped_steps"] for line in records(run_dir)] == [0, 0, 0, 0, 1, 1, 1, 1]
    run(first, sample_shards, 1, "--train.num_steps", "12")
    run(second, sample_shards, 2, "--train.num_steps", "12", *zero1)
    assert len(losses(first)) == 12
    finite = [number for number in range(12) if number != 4]
    one, other = ([losses(run_dir)[number] for number in finite] for run_dir in (first, second))
    assert one == pytest.approx(other, rel=1e-5)
    validations = [[line["loss"] for line in records(run_dir, "validation")] for run_dir in (first, second)]
    assert validations[0] == pytest.approx(validations[1], rel=1e-5)
