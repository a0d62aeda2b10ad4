"""The options that all training runs share, with default, unit, meaning, range, and whether a resumed run may change
them: the single source of all of these (DESIGN contract 6). A model's own options stand in its folder of
`sgloc.models`."""

import dataclasses
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypedDict, TypeVar, Unpack

from sgloc.errors import ConfigError

Value = TypeVar("Value")

OriginName = Literal["first_point", "top_left"]

_COMPARISONS = {"above": operator.gt, "at_least": operator.ge, "below": operator.lt, "at_most": operator.le}


def require(condition: bool, option: str, requirement: str, value: object) -> None:
    """Refuse an option's value, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{option} must be {requirement}, not {value}")


class Facts(TypedDict, total=False):
    """What is known of an option besides its default.

    Attributes:
        above, at_least, below, at_most: the range of its value.
        free: a resumed run may change it: it says where, how long or how often, not what is computed.
        place: it holds a path or URL, which is recorded as an absolute one without secrets.
        required: a run cannot do without a value for it.
        before: what was done before the option existed, where that is not the default.
    """

    above: float
    at_least: float
    below: float
    at_most: float
    free: bool
    place: bool
    required: bool
    before: Any


def option(default: Value, **facts: Unpack[Facts]) -> Value:
    """A field of `Options`; its help text is the docstring below it.

    Args:
        default: its value, where none is given. Where that is None, None is allowed besides the range.
        facts: what else is known of it.
    """
    return field(default=default, metadata=facts)


def _range(limits: Mapping[str, Any]) -> str:
    """What a value must be, in words; empty for anything."""
    if "at_least" in limits and "at_most" in limits:
        return f"from {limits['at_least']:,} to {limits['at_most']:,}"
    return " and ".join(f"{name.replace('_', ' ')} {limits[name]:,}" for name in _COMPARISONS if name in limits)


def _is_within(value: Any, limits: Mapping[str, Any]) -> bool:
    """Whether a value is in its range, which NaN never is."""
    return all(compare(value, limits[name]) for name, compare in _COMPARISONS.items() if name in limits)


@dataclass(frozen=True)
class Options:
    """A section of options, which checks their ranges.

    `class DataConfig(Options, section="data")` names the section, as its options are named: data.path.

    Raises:
        ConfigError: if an option is not within its range.
    """

    _section: ClassVar[str] = ""

    def __init_subclass__(cls, section: str | None = None) -> None:
        if section is not None:
            cls._section = f"{section}." if section else ""

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            value, wanted = getattr(self, one.name), _range(one.metadata)
            if wanted and not (value is None and one.default is None) and not _is_within(value, one.metadata):
                wanted = f"null or {wanted}" if one.default is None else wanted
                raise ConfigError(f"{self._section}{one.name} must be {wanted}, not {value}")


@dataclass(frozen=True)
class DataConfig(Options, section="data"):
    """Which drawings, and how they are read."""

    path: str = option("", free=True, place=True, required=True)
    """Folder or URL of the shards that `sgloc shard` wrote. Required."""
    prefetch: int = option(2, at_least=1, free=True)
    """Batches that are read ahead of the training step."""
    read_threads: int = option(0, at_least=0, free=True)
    """Blocks of shards that are fetched at the same time; 0: one from a local folder, eight from elsewhere."""
    read_attempts: int = option(6, at_least=1, free=True)
    """How often a read that fails for a reason that may pass is tried before its shard counts as bad."""
    read_timeout: float = option(60.0, above=0, free=True)
    """Seconds that a server may give nothing before a read counts as failed."""
    bad_shards: Literal["stop", "skip"] = option("stop", free=True)
    """What to do about a training or validation shard that stays unreadable or damaged: stop, or skip it on all
    ranks."""
    cache: str = option("", free=True, place=True)
    """Local folder in which the processes of a node keep, in a folder of their own, what they read of remote shards;
    empty: nothing is kept."""
    cache_gigabytes: float = option(50.0, above=0, free=True)
    """Most that the cache may hold, in 10^9 bytes."""
    validation_limit: int = option(0, at_least=0)
    """Validate on this many drawings, spread evenly over the validation split; 0: on all."""


@dataclass(frozen=True)
class OptimizerConfig(Options, section="optimizer"):
    """Adam and its schedule (METHOD 8)."""

    learning_rate: float = option(1e-3, above=0)
    """Learning rate at step 0."""
    min_learning_rate: float = option(1e-5, at_least=0)
    """Learning rate towards which it decays."""
    learning_rate_decay: float = option(0.99999, above=0, at_most=1)
    """Factor a step by which the learning rate's distance from its minimum shrinks."""
    clip_norm: float = option(1.0, above=0)
    """Largest norm of the gradient; a larger one is scaled down to it."""
    clip_by: Literal["whole", "variable"] = option("whole")
    """Whose norm that is: the whole gradient's, or, as published, that of each of the original's variables by itself.
    The norm that is logged is the whole one in either case."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.min_learning_rate <= self.learning_rate,
            "optimizer.min_learning_rate",
            "from 0 to the learning rate",
            self.min_learning_rate,
        )


def _steps_and_epochs(every: int | str) -> tuple[int, int]:
    """What train.validate_every says, one of them 0."""
    match = re.fullmatch(r"([0-9]+) epochs?", every) if isinstance(every, str) else None
    steps, epochs = (0, int(match[1])) if match else (every, 0)
    is_right = isinstance(steps, int) and not isinstance(steps, bool) and max(steps, epochs) >= 1
    require(is_right, "train.validate_every", 'a number of steps, at least 1, or such as "1 epoch"', repr(every))
    return int(steps), epochs


@dataclass(frozen=True)
class TrainConfig(Options, section="train"):
    """The run: how long, how often, where to."""

    run: str = option("runs/default", free=True, place=True)
    """Folder or URL of the run: configuration, metrics and checkpoints. One run, one folder."""
    init_from: str = option("", free=True, place=True)
    """Start a new run from the weights of a checkpoint, of a run's best, or of an exported model; --init_from for
    short. Optimizer, schedule and data begin anew. Empty: from random weights. A run that has checkpoints goes on from
    those."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Seed of everything random."""
    num_steps: int = option(100_000, at_least=1, free=True)
    """Optimizer steps after which the run is finished."""
    # Batch norm over one drawing would make every code the same.
    global_batch: int = option(100, at_least=2)
    """Drawings in an optimizer step, over all ranks."""
    accumulation: int = option(1, at_least=1, free=True)
    """Parts in which each rank computes its share of the batch, one after the other. The result is the same; memory is
    divided, and the forward pass is computed twice."""
    precision: Literal["float32", "bfloat16"] = option("float32")
    """bfloat16: matrix products in bfloat16 under autocast; weights, batch norm, mixture density and loss stay in
    float32."""
    tf32: bool = option(False)
    """Compute float32 products on CUDA in TF32, with 10 binary digits in place of 23, which is faster on GPUs since
    Ampere. For training and its validation; all other commands compute in float32."""
    engine: str = option("ddp", free=True)
    """Engine that takes the steps: ddp, DistributedDataParallel; or deepspeed, which a file in train.deepspeed chooses
    by itself."""
    deepspeed: str = option("", free=True, place=True)
    """JSON file of DeepSpeed, such as those in configs/deepspeed; empty: another engine. The result is the same."""
    device: Literal["auto", "cpu", "cuda"] = option("auto", free=True)
    """Where to compute; auto takes CUDA when there is one."""
    log_every: int = option(10, at_least=1, free=True)
    """Steps between lines of metrics."""
    validate_every: int | str = option(500, free=True)
    """Steps between validations; or, such as "1 epoch" or "2 epochs", passes through the training drawings, rounded up
    to whole steps."""
    patience: int = option(5, at_least=0, free=True)
    """Stop after this many validations in a row without a new best; 0: never."""
    checkpoint_every: int = option(500, at_least=1, free=True)
    """Steps between checkpoints, besides those at a new best, at a stop and at the end."""
    keep_checkpoints: int = option(2, at_least=1, free=True)
    """Newest checkpoints that are kept, besides the best."""
    keep_every: int = option(0, at_least=0, free=True)
    """Keep the checkpoints of every so manieth step as well, for good; 0: none."""
    save_attempts: int = option(3, at_least=1, free=True)
    """Checkpoints in a row that may fail to be written before the run stops."""
    bad_steps: int = option(3, at_least=0, free=True)
    """Steps in a row that are skipped because their loss or gradient is not finite, before the run stops."""
    timeout: float = option(600.0, at_least=1, free=True)
    """Seconds that a process waits for the others before it gives up, so that a process that hangs ends the run, which
    its launcher then starts again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _steps_and_epochs(self.validate_every)
        require(bool(self.run), "train.run", "a folder or URL", repr(self.run))

    def validation_interval(self, num_drawings: int) -> int:
        """Steps between validations.

        Args:
            num_drawings: of the training split.
        """
        steps, epochs = _steps_and_epochs(self.validate_every)
        return steps or max(1, -(-epochs * num_drawings // self.global_batch))


@dataclass(frozen=True)
class LogConfig(Options, section="log"):
    """Where metrics go besides metrics.jsonl in the run's folder. Whatever fails there, training goes on."""

    wandb: Literal["auto", "disabled", "offline", "online"] = option("auto", free=True)
    """Weights & Biases, from rank 0; auto: as WANDB_MODE and WANDB_DISABLED say, else disabled. The key comes from
    `wandb login` or WANDB_API_KEY. A resumed run continues its curves. offline, and online where it cannot be reached,
    writes into the run's folder, and the end of the run says which `wandb sync` uploads that from a machine with
    network."""
    wandb_project: str = option("", free=True)
    """Weights & Biases project; empty: as WANDB_PROJECT says, else sketchgloc."""
    wandb_entity: str = option("", free=True)
    """Weights & Biases user or team; empty: as WANDB_ENTITY says, else your default."""
    wandb_group: str = option("", free=True)
    """Weights & Biases group of runs; empty: as WANDB_RUN_GROUP says, else none."""
    wandb_name: str = option("", free=True)
    """Name of the run at Weights & Biases; empty: as WANDB_NAME says, else one is made up there."""
    wandb_timeout: float = option(60.0, at_least=1, free=True)
    """Seconds that Weights & Biases may take to answer at the start, while training goes on, and to upload the rest at
    the end, while the run waits."""
    tensorboard: bool = option(False, free=True)
    """Write TensorBoard's files into the run's folder, which must be local: `tensorboard --logdir` shows them."""
    # Rank 0 draws them while the others wait.
    gallery: int = option(8, at_least=0, at_most=256, free=True)
    """Validation drawings that a model which draws shows redrawn, as they are and with their strokes moved, at each
    validation, where Weights & Biases or TensorBoard is on, and in gallery/ of the run's folder; 0: none."""


@dataclass(frozen=True)
class RunConfig:
    """A whole training run. Each model has a configuration of its own, with its own section `model`: on that and the
    data alone its network depends, and its option `kind` is the model's name (`sgloc.models.recipe_of`)."""

    model: Options = field(default_factory=Options)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)


def walk(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """The dotted name, field and value of every option of a configuration or section."""
    for one in dataclasses.fields(config):
        value, name = getattr(config, one.name), f"{prefix}{one.name}"
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{name}.")
        else:
            yield name, one, value


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by dotted name."""
    result: dict[str, Any] = {}
    for name, value in options.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return result


def identity(config: RunConfig) -> dict[str, Any]:
    """The options that make a run what it is, by dotted name."""
    return {name: value for name, one, value in walk(config) if not one.metadata.get("free")}


def recorded_identity(options: Mapping[str, Any], config_type: type[RunConfig]) -> dict[str, Any]:
    """The same of a configuration that was written down.

    Args:
        options: its sections, as a checkpoint or an export holds them. An option that they lack is younger than them:
            it is taken for what was done before it existed.
        config_type: of the configuration.
    """
    fields = list(walk(config_type()))
    before = {name: one.metadata.get("before", default) for name, one, default in fields}
    free = {name for name, one, _ in fields if one.metadata.get("free")}
    return {name: value for name, value in {**before, **flat(options)}.items() if name not in free}


def rebuilt(options_type: type[Value], options: Mapping[str, Any]) -> Value:
    """A section or configuration that was written down; for options that it lacks see `recorded_identity`.

    Raises:
        TypeError: if it holds an option that there is not, or holds no options.
        ConfigError: if an option is not within its range.
    """
    values = dict(options)
    for one in dataclasses.fields(options_type):  # type: ignore[arg-type]
        if one.default_factory is not dataclasses.MISSING and one.name in values:
            values[one.name] = rebuilt(type(one.default_factory()), values[one.name])
        elif one.name not in values and "before" in one.metadata:
            values[one.name] = one.metadata["before"]
    return options_type(**values)
