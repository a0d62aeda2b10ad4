"""The options shared by all training runs (DESIGN contract 6).

This is the single source of their defaults, units, meanings and ranges, and of whether a resumed run may change them.
Options of a model are in the model's folder in `sgloc.models`.
"""

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
    """Raise ConfigError about an option's value unless the condition holds."""
    if not condition:
        raise ConfigError(f"{option} must be {requirement}, not {value}")


class Facts(TypedDict, total=False):
    """Metadata of an option.

    Attributes:
        above, at_least, below, at_most: range of the value.
        free: a resumed run may change the option, which affects where, how long or how often, not what is computed.
        place: the value is a path or URL, which is recorded as an absolute path or with secrets masked.
        required: a run needs a value for the option.
        before: the value that describes runs from before the option existed, if other than the default.
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
    """Declare a field of `Options`; the docstring below the field is its help text.

    Args:
        default: default value; if it is None, None is allowed in addition to the range.
        facts: metadata of the option.
    """
    return field(default=default, metadata=facts)


def _range(limits: Mapping[str, Any]) -> str:
    """Describe the range of a value in words; empty if there is none."""
    if "at_least" in limits and "at_most" in limits:
        return f"from {limits['at_least']:,} to {limits['at_most']:,}"
    return " and ".join(f"{name.replace('_', ' ')} {limits[name]:,}" for name in _COMPARISONS if name in limits)


def _is_within(value: Any, limits: Mapping[str, Any]) -> bool:
    """Return whether a value is within its range; NaN never is."""
    return all(compare(value, limits[name]) for name, compare in _COMPARISONS.items() if name in limits)


@dataclass(frozen=True)
class Options:
    """A section of options; checks their ranges.

    The section's name is a class argument: with `class DataConfig(Options, section="data")`, an option is named
    data.path.

    Raises:
        ConfigError: if an option is out of range.
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
    """The drawings, and how they are read."""

    path: str = option("", free=True, place=True, required=True)
    """Folder or URL of the shards built by `sgloc shard`. Required."""
    prefetch: int = option(2, at_least=1, free=True)
    """Number of batches to read ahead of the training step."""
    read_threads: int = option(0, at_least=0, free=True)
    """Number of shard blocks to fetch concurrently; 0: 1 for a local folder, 8 for a remote one."""
    read_attempts: int = option(6, at_least=1, free=True)
    """Number of attempts at a read that fails with a transient error, before its shard counts as bad."""
    read_timeout: float = option(60.0, above=0, free=True)
    """Seconds without any data from a server before a read counts as failed."""
    bad_shards: Literal["stop", "skip"] = option("stop", free=True)
    """How to handle a training or validation shard that stays unreadable or damaged: stop the run, or skip the shard
    on all ranks."""
    cache: str = option("", free=True, place=True)
    """Local folder for a cache of blocks read from remote shards, shared by all processes on a machine; the cache is a
    subfolder of it. Empty disables caching."""
    cache_gigabytes: float = option(50.0, above=0, free=True)
    """Maximum size of the cache in GB (10^9 bytes)."""
    validation_limit: int = option(0, at_least=0)
    """Number of drawings to validate on, spread evenly over the validation split; 0: all."""


@dataclass(frozen=True)
class OptimizerConfig(Options, section="optimizer"):
    """Adam and its learning-rate schedule (METHOD 8)."""

    learning_rate: float = option(1e-3, above=0)
    """Initial learning rate."""
    min_learning_rate: float = option(1e-5, at_least=0)
    """Minimum learning rate, approached by exponential decay."""
    learning_rate_decay: float = option(0.99999, above=0, at_most=1)
    """Factor per step by which the difference between the learning rate and its minimum decays; 1 disables decay."""
    clip_norm: float = option(1.0, above=0)
    """Maximum gradient norm; larger gradients are scaled down to it."""
    clip_by: Literal["whole", "variable"] = option("whole")
    """What to clip: the whole gradient by its global norm, or, as published, the gradient of each of the original's
    variables by its own norm. The logged norm is the global one in either case."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.min_learning_rate <= self.learning_rate,
            "optimizer.min_learning_rate",
            "from 0 to the learning rate",
            self.min_learning_rate,
        )


def _steps_and_epochs(every: int | str) -> tuple[int, int]:
    """Parse train.validate_every into (steps, epochs), one of which is 0."""
    match = re.fullmatch(r"([0-9]+) epochs?", every) if isinstance(every, str) else None
    steps, epochs = (0, int(match[1])) if match else (every, 0)
    is_right = isinstance(steps, int) and not isinstance(steps, bool) and max(steps, epochs) >= 1
    require(is_right, "train.validate_every", 'a number of steps, at least 1, or epochs as in "1 epoch"', repr(every))
    return int(steps), epochs


@dataclass(frozen=True)
class TrainConfig(Options, section="train"):
    """The training run: its folder, length, engine, checkpoints and limits."""

    run: str = option("runs/default", free=True, place=True)
    """Run folder (path or URL) for configuration, metrics and checkpoints; every run needs its own."""
    init_from: str = option("", free=True, place=True)
    """Initialize a new run with the weights of a checkpoint, a run (its best checkpoint) or an exported model; the
    optimizer, schedule and data start from the beginning. Short form: --init_from. Empty: random weights. A run that
    has checkpoints resumes from those."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Seed of all randomness."""
    num_steps: int = option(100_000, at_least=1, free=True)
    """Total number of optimizer steps."""
    # With one drawing, batch norm would map every sketch to the same latent code.
    global_batch: int = option(100, at_least=2)
    """Number of drawings per optimizer step, over all ranks."""
    accumulation: int = option(1, at_least=1, free=True)
    """Number of micro-batches per rank (gradient accumulation). More micro-batches need less memory, but the forward
    pass is computed twice; the result is the same."""
    precision: Literal["float32", "bfloat16"] = option("float32")
    """bfloat16: matrix products in bfloat16 under autocast; weights, batch norm, mixture density and loss stay in
    float32."""
    tf32: bool = option(False)
    """Compute float32 matrix products in TF32 (10 mantissa bits instead of 23) on CUDA, which is faster on GPUs since
    Ampere. Applies to training and its validation; all other commands compute in float32."""
    engine: str = option("ddp", free=True)
    """Training engine: ddp (DistributedDataParallel) or deepspeed; setting train.deepspeed selects deepspeed
    automatically."""
    deepspeed: str = option("", free=True, place=True)
    """DeepSpeed's JSON configuration file, such as those in configs/deepspeed; empty: do not use DeepSpeed. The result
    is the same."""
    device: Literal["auto", "cpu", "cuda"] = option("auto", free=True)
    """Device to train on; auto: CUDA if available, else the CPU."""
    log_every: int = option(10, at_least=1, free=True)
    """Number of steps between training records in the metrics."""
    validate_every: int | str = option(500, free=True)
    """Number of steps between validations, or of epochs, such as "1 epoch" or "2 epochs", rounded up to whole steps."""
    patience: int = option(5, at_least=0, free=True)
    """Stop after this many consecutive validations without improvement; 0 disables early stopping."""
    checkpoint_every: int = option(500, at_least=1, free=True)
    """Number of steps between checkpoints, besides those saved at a new best, at a stop and at the end."""
    keep_checkpoints: int = option(2, at_least=1, free=True)
    """Number of newest checkpoints to keep, besides the best."""
    keep_every: int = option(0, at_least=0, free=True)
    """Also keep every N-th step's checkpoint permanently; 0 disables."""
    save_attempts: int = option(3, at_least=1, free=True)
    """Number of consecutive failed checkpoint saves that stop the run."""
    bad_steps: int = option(3, at_least=0, free=True)
    """Maximum number of consecutive steps to skip for a non-finite loss or gradient; one more stops the run."""
    timeout: float = option(600.0, at_least=1, free=True)
    """Seconds that ranks wait for each other. A rank that hangs for longer ends the run, which its launcher then
    restarts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _steps_and_epochs(self.validate_every)
        require(bool(self.run), "train.run", "a folder or URL", repr(self.run))

    def validation_interval(self, num_drawings: int) -> int:
        """Return the number of steps between validations.

        Args:
            num_drawings: number of drawings in the training split.
        """
        steps, epochs = _steps_and_epochs(self.validate_every)
        return steps or max(1, -(-epochs * num_drawings // self.global_batch))


@dataclass(frozen=True)
class LogConfig(Options, section="log"):
    """Loggers besides metrics.jsonl in the run folder; their failures never stop training."""

    wandb: Literal["auto", "disabled", "offline", "online"] = option("auto", free=True)
    """Log to Weights & Biases from rank 0; auto: follow WANDB_MODE and WANDB_DISABLED, else disabled. The API key is
    taken from `wandb login` or WANDB_API_KEY. A resumed run continues its curves. With offline, or if the server is
    unreachable, logs go to the run folder, and the end of the run prints the `wandb sync` command that uploads them."""
    wandb_project: str = option("", free=True)
    """Weights & Biases project; empty: WANDB_PROJECT, else sketchgloc."""
    wandb_entity: str = option("", free=True)
    """Weights & Biases user or team; empty: WANDB_ENTITY, else your default."""
    wandb_group: str = option("", free=True)
    """Weights & Biases group of runs; empty: WANDB_RUN_GROUP, else none."""
    wandb_name: str = option("", free=True)
    """Display name of the run in Weights & Biases; empty: WANDB_NAME, else generated by Weights & Biases."""
    wandb_timeout: float = option(60.0, at_least=1, free=True)
    """Seconds that Weights & Biases may take to connect at the start, while training continues, and to finish
    uploading at the end, while the run waits."""
    tensorboard: bool = option(False, free=True)
    """Write TensorBoard event files to the run folder, which must be local; view them with `tensorboard --logdir`."""
    # Rank 0 draws the gallery while the other ranks wait.
    gallery: int = option(8, at_least=0, at_most=256, free=True)
    """Number of validation drawings in the gallery, drawn at each validation by models that generate drawings: redrawn
    as they are and with strokes moved. Requires Weights & Biases or TensorBoard, and is also saved in gallery/ of the
    run folder; 0 disables it."""


@dataclass(frozen=True)
class RunConfig:
    """The configuration of a training run.

    Each model subclasses it with its own `model` section. The network depends only on that section and the data; the
    section's option `kind` is the name of the model (`sgloc.models.recipe_of`).
    """

    model: Options = field(default_factory=Options)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)


def walk(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Yield the dotted name, field and value of every option in a configuration or section."""
    for one in dataclasses.fields(config):
        value, name = getattr(config, one.name), f"{prefix}{one.name}"
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{name}.")
        else:
            yield name, one, value


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options as a flat dictionary with dotted names."""
    result: dict[str, Any] = {}
    for name, value in options.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return result


def identity(config: RunConfig) -> dict[str, Any]:
    """Return the options that determine what a run computes, by dotted name."""
    return {name: value for name, one, value in walk(config) if not one.metadata.get("free")}


def recorded_identity(options: Mapping[str, Any], config_type: type[RunConfig]) -> dict[str, Any]:
    """Return the `identity` of a recorded configuration.

    Args:
        options: the sections as recorded in a checkpoint or exported model. An option missing from them was introduced
            later, and gets the value that describes the behaviour before it existed.
        config_type: type of the configuration.
    """
    fields = list(walk(config_type()))
    before = {name: one.metadata.get("before", default) for name, one, default in fields}
    free = {name for name, one, _ in fields if one.metadata.get("free")}
    return {name: value for name, value in {**before, **flat(options)}.items() if name not in free}


def rebuilt(options_type: type[Value], options: Mapping[str, Any]) -> Value:
    """Rebuild a recorded section or configuration; for options missing from it, see `recorded_identity`.

    Raises:
        TypeError: if it contains an unknown option, or is not a mapping of options.
        ConfigError: if an option is out of range.
    """
    values = dict(options)
    for one in dataclasses.fields(options_type):  # type: ignore[arg-type]
        if one.default_factory is not dataclasses.MISSING and one.name in values:
            values[one.name] = rebuilt(type(one.default_factory()), values[one.name])
        elif one.name not in values and "before" in one.metadata:
            values[one.name] = one.metadata["before"]
    return options_type(**values)
