"""Every option of a training run, with its default, unit and meaning: the single source of all three (DESIGN contract
6)."""

import re
from dataclasses import Field, dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from sgloc.errors import ConfigError

CellName = Literal["lstm", "layer_norm", "hyper"]
ModelName = Literal["sketchgloc", "sketch_rnn"]
OriginName = Literal["first_point", "top_left"]
GraphName = Literal["grid9", "none", "complete", "temporal", "nearest"]


def require(condition: bool, option: str, requirement: str, value: object) -> None:
    """Refuse an option's value, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{option} must be {requirement}, not {value}")


@dataclass(frozen=True)
class EncoderConfig:
    """The recurrent stroke encoder (METHOD 5)."""

    cell: CellName = "lstm"
    """Recurrent cell of both directions."""
    hidden_size: int = 512
    """Units of each direction; a node's embedding is twice as wide."""
    recurrent_keep: float = 0.9
    """Probability that recurrent dropout keeps a unit of the candidate; 1 turns it off."""

    def __post_init__(self) -> None:
        require(self.hidden_size >= 1, "model.encoder.hidden_size", "at least 1", self.hidden_size)
        require(
            0 < self.recurrent_keep <= 1, "model.encoder.recurrent_keep", "above 0 and at most 1", self.recurrent_keep
        )


@dataclass(frozen=True)
class DecoderConfig:
    """The recurrent decoder (METHOD 6)."""

    cell: CellName = "hyper"
    """Recurrent cell."""
    hidden_size: int = 512
    """Units."""
    recurrent_keep: float = 0.9
    """Probability that recurrent dropout keeps a unit of the candidate; 1 turns it off."""
    num_mixtures: int = 20
    """Components of the mixture that says where the next point is."""

    def __post_init__(self) -> None:
        require(self.hidden_size >= 1, "model.decoder.hidden_size", "at least 1", self.hidden_size)
        require(
            0 < self.recurrent_keep <= 1, "model.decoder.recurrent_keep", "above 0 and at most 1", self.recurrent_keep
        )
        require(self.num_mixtures >= 1, "model.decoder.num_mixtures", "at least 1", self.num_mixtures)


@dataclass(frozen=True)
class ModelConfig:
    """The model's shape. The defaults are SketchGloc's published sizes."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    kind: ModelName = "sketchgloc"
    """sketch_rnn: the classical baseline, whose encoder reads the whole drawing as one sequence of points and knows no
    strokes and no graphs; the decoder is the same."""
    graph: GraphName = "grid9"
    """Graphs between strokes. grid9: the nine of METHOD 4. The others are there to compare with: none, every stroke
    alone; complete, everything linked; temporal, neighbours in drawing order; nearest, those with the nearest boxes."""
    num_neighbours: int = 3
    """Strokes that a stroke is linked with in the graph `nearest`."""
    graph_layers: int = 2
    """Layers of graph convolution."""
    graph_weights: Literal["separate", "shared"] = "separate"
    """shared: all of the nine graphs have the same weights, so that it does not matter where a stroke is."""
    graph_center: bool = True
    """Pass messages over the graph of the grid's centre too, in which every stroke is linked with itself."""
    graph_mean: bool = False
    """In the nine graphs, take the mean over a stroke's neighbours in place of the published sum."""
    graph_relation: Literal["perimeter", "middle"] = "perimeter"
    """Cells of a stroke's grid in which another is. perimeter: those on the border of the block that its box covers, as
    published. middle: the one that the middle of its box is in."""
    latent_size: int = 128
    """Width of the sketch code y."""
    hyper_size: int = 256
    """Units of the small LSTM inside a `hyper` cell."""
    hyper_embedding_size: int = 32
    """Width of the embeddings through which a `hyper` cell scales its gates."""
    hyper_dropout: Literal["main", "both"] = "main"
    """Where recurrent dropout falls in a `hyper` cell: on the candidate of the main LSTM alone, as published, or on
    that of the small LSTM inside it too."""
    max_node_points: int | None = None
    """Most points in a graph node; longer strokes become several nodes. null: a node is a whole stroke."""
    batch_norm_epsilon: float = 1e-5
    """What batch norm adds to the variance; weights that TensorFlow trained want 1.001e-5."""

    def __post_init__(self) -> None:
        for name in ("latent_size", "hyper_size", "hyper_embedding_size", "num_neighbours", "graph_layers"):
            require(getattr(self, name) >= 1, f"model.{name}", "at least 1", getattr(self, name))
        require(
            self.max_node_points is None or self.max_node_points >= 1,
            "model.max_node_points",
            "null or at least 1",
            self.max_node_points,
        )
        require(self.batch_norm_epsilon > 0, "model.batch_norm_epsilon", "above 0", self.batch_norm_epsilon)


@dataclass(frozen=True)
class DataConfig:
    """Which drawings, in which order, changed how."""

    path: str = ""
    """Folder or URL of the shards that `sgloc shard` wrote. Required."""
    origin: OriginName = "first_point"
    """Origin of drawings whose form has none of its own, which is every form but npz: the first point, or the top left
    corner of the canvas (METHOD 1)."""
    disturb: float = 0.0
    """How far strokes are moved, r of METHOD 3, in sketch sizes: 0 trains synthesis, 0.1 or 0.3 reorganization."""
    validation_disturb: float | None = None
    """How far strokes are moved in validation, by which the best checkpoint is chosen; null: as far as in training. The
    original validates on undisturbed sketches, 0."""
    augment_scale: float = 0.1
    """x and y are scaled by factors from 1 - this to 1 + this, in training."""
    drop_probability: float = 0.1
    """Probability that an inner point of a stroke is dropped, in training."""
    translate: bool = True
    """Move each whole sketch at random in training (METHOD 8), as published: the origin then lies anywhere over the
    middle two thirds of the sketch."""
    prefetch: int = 2
    """Batches that are read ahead of the training step."""
    read_threads: int = 0
    """Blocks of shards that are fetched at the same time; 0: one from a local folder, eight from elsewhere."""
    read_attempts: int = 6
    """How often a read that fails for a reason that may pass is tried before its shard counts as bad."""
    read_timeout: float = 60.0
    """Seconds that a server may give nothing before a read counts as failed."""
    bad_shards: Literal["stop", "skip"] = "stop"
    """What to do about a training or validation shard that stays unreadable or damaged: stop, or skip it on all
    ranks."""
    cache: str = ""
    """Local folder in which the processes of a node keep, in a folder of their own, what they read of remote shards;
    empty: nothing is kept."""
    cache_gigabytes: float = 50.0
    """Most that the cache may hold, in 10^9 bytes."""
    validation_limit: int = 0
    """Validate on this many drawings, spread evenly over the validation split; 0: on all."""

    def __post_init__(self) -> None:
        require(self.disturb >= 0, "data.disturb", "at least 0", self.disturb)
        disturb = self.validation_disturb
        require(disturb is None or disturb >= 0, "data.validation_disturb", "null or at least 0", disturb)
        require(0 <= self.augment_scale < 1, "data.augment_scale", "at least 0 and below 1", self.augment_scale)
        require(
            0 <= self.drop_probability < 1, "data.drop_probability", "at least 0 and below 1", self.drop_probability
        )
        require(self.prefetch >= 1, "data.prefetch", "at least 1", self.prefetch)
        require(self.read_threads >= 0, "data.read_threads", "at least 0", self.read_threads)
        require(self.read_attempts >= 1, "data.read_attempts", "at least 1", self.read_attempts)
        require(self.read_timeout > 0, "data.read_timeout", "above 0", self.read_timeout)
        require(self.cache_gigabytes > 0, "data.cache_gigabytes", "above 0", self.cache_gigabytes)
        require(self.validation_limit >= 0, "data.validation_limit", "at least 0", self.validation_limit)


@dataclass(frozen=True)
class LossConfig:
    """What is minimised (METHOD 5 and 7)."""

    kl_weight: float = 0.0
    """Weight of the code's Kullback-Leibler divergence from a standard normal; the published loss has none.
    Sketch-RNN's 0.5, which counts a mean over the code and over 250 points, is about 1 in these sums."""
    kl_start: float = 1.0
    """Share of that weight at step 0, from which it grows to the whole; 1: the whole from the start. Sketch-RNN's is
    0.01."""
    kl_decay: float = 0.99995
    """Factor a step by which what is missing of the weight shrinks."""
    pen_loss_on_padding: bool = False
    """Count the pen's cross entropy on end rows up to the data set's longest drawing, as the original's training loss
    did. Costs the padding it computes."""
    density_floor: float = 0.0
    """Added to the mixture's density inside the logarithm. The original's 1e-6 means that no point costs more than 13.8
    nats."""

    def __post_init__(self) -> None:
        require(self.kl_weight >= 0, "loss.kl_weight", "at least 0", self.kl_weight)
        require(0 <= self.density_floor <= 1, "loss.density_floor", "from 0 to 1", self.density_floor)
        require(0 <= self.kl_start <= 1, "loss.kl_start", "from 0 to 1", self.kl_start)
        require(0 < self.kl_decay <= 1, "loss.kl_decay", "above 0 and at most 1", self.kl_decay)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam and its schedule (METHOD 8)."""

    learning_rate: float = 1e-3
    """Learning rate at step 0."""
    min_learning_rate: float = 1e-5
    """Learning rate towards which it decays."""
    learning_rate_decay: float = 0.99999
    """Factor a step by which the learning rate's distance from its minimum shrinks."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; a larger one is scaled down to it."""
    clip_by: Literal["whole", "variable"] = "whole"
    """Whose norm that is: the whole gradient's, or, as published, that of each of the original's variables by itself.
    The norm that is logged is the whole one in either case."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "optimizer.learning_rate", "above 0", self.learning_rate)
        require(
            0 <= self.min_learning_rate <= self.learning_rate,
            "optimizer.min_learning_rate",
            "from 0 to the learning rate",
            self.min_learning_rate,
        )
        require(
            0 < self.learning_rate_decay <= 1,
            "optimizer.learning_rate_decay",
            "above 0 and at most 1",
            self.learning_rate_decay,
        )
        require(self.clip_norm > 0, "optimizer.clip_norm", "above 0", self.clip_norm)


def _steps_and_epochs(every: int | str) -> tuple[int, int]:
    """What train.validate_every says, one of them 0."""
    match = re.fullmatch(r"([0-9]+) epochs?", every) if isinstance(every, str) else None
    steps, epochs = (0, int(match[1])) if match else (every, 0)
    is_right = isinstance(steps, int) and not isinstance(steps, bool) and max(steps, epochs) >= 1
    require(is_right, "train.validate_every", 'a number of steps, at least 1, or such as "1 epoch"', repr(every))
    return int(steps), epochs


@dataclass(frozen=True)
class TrainConfig:
    """The run: how long, how often, where to."""

    run: str = "runs/default"
    """Folder or URL of the run: configuration, metrics and checkpoints. One run, one folder."""
    init_from: str = ""
    """Start a new run from the weights of a checkpoint, of a run's best, or of an exported model; --init_from for
    short. Optimizer, schedule and data begin anew. Empty: from random weights. A run that has checkpoints goes on from
    those."""
    seed: int = 0
    """Seed of everything random."""
    num_steps: int = 100_000
    """Optimizer steps after which the run is finished."""
    global_batch: int = 100
    """Drawings in an optimizer step, over all ranks."""
    accumulation: int = 1
    """Parts in which each rank computes its share of the batch, one after the other. The result is the same; memory is
    divided, and the forward pass is computed twice."""
    checkpoint_decoder: bool = False
    """Keep the decoder's state only every 32 steps, and compute the rest again in the backward pass. The result is the
    same; the decoder's memory becomes a fraction, its forward pass is computed twice."""
    compile: bool = False
    """Run the recurrent cells by steps that torch.compile has compiled, for a few batch sizes: meant for CUDA, where a
    step is otherwise dozens of small kernels. The result is the same; the first steps take minutes longer."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: matrix products in bfloat16 under autocast; weights, batch norm, mixture density and loss stay in
    float32."""
    tf32: bool = False
    """Compute float32 products on CUDA in TF32, with 10 binary digits in place of 23, which is faster on GPUs since
    Ampere. For training and its validation; all other commands compute in float32."""
    deepspeed: str = ""
    """JSON file of DeepSpeed, such as those in configs/deepspeed; empty: train with DistributedDataParallel. The result
    is the same."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA when there is one."""
    log_every: int = 10
    """Steps between lines of metrics."""
    validate_every: int | str = 500
    """Steps between validations; or, such as "1 epoch" or "2 epochs", passes through the training drawings, rounded up
    to whole steps."""
    patience: int = 5
    """Stop after this many validations in a row without a new best; 0: never."""
    checkpoint_every: int = 500
    """Steps between checkpoints, besides those at a new best, at a stop and at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept, besides the best."""
    keep_every: int = 0
    """Keep the checkpoints of every so manieth step as well, for good; 0: none."""
    save_attempts: int = 3
    """Checkpoints in a row that may fail to be written before the run stops."""
    bad_steps: int = 3
    """Steps in a row that are skipped because their loss or gradient is not finite, before the run stops."""
    timeout: float = 600.0
    """Seconds that a process waits for the others before it gives up, so that a process that hangs ends the run, which
    its launcher then starts again."""

    def __post_init__(self) -> None:
        # Batch norm over one drawing would make every code the same.
        require(self.global_batch >= 2, "train.global_batch", "at least 2", self.global_batch)
        for name in (
            "num_steps",
            "accumulation",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
            "save_attempts",
        ):
            require(getattr(self, name) >= 1, f"train.{name}", "at least 1", getattr(self, name))
        _steps_and_epochs(self.validate_every)
        require(0 <= self.seed < 2**63, "train.seed", "at least 0 and below 2**63", self.seed)
        for name in ("patience", "keep_every", "bad_steps"):
            require(getattr(self, name) >= 0, f"train.{name}", "at least 0", getattr(self, name))
        require(self.timeout >= 1, "train.timeout", "at least 1", self.timeout)
        require(bool(self.run), "train.run", "a folder or URL", repr(self.run))

    def validation_interval(self, num_drawings: int) -> int:
        """Steps between validations.

        Args:
            num_drawings: of the training split.
        """
        steps, epochs = _steps_and_epochs(self.validate_every)
        return steps or max(1, -(-epochs * num_drawings // self.global_batch))


@dataclass(frozen=True)
class LogConfig:
    """Where metrics go besides metrics.jsonl in the run's folder. Whatever fails there, training goes on."""

    wandb: Literal["auto", "disabled", "offline", "online"] = "auto"
    """Weights & Biases, from rank 0; auto: as WANDB_MODE and WANDB_DISABLED say, else disabled. The key comes from
    `wandb login` or WANDB_API_KEY. A resumed run continues its curves. offline, and online where it cannot be reached,
    writes into the run's folder, and the end of the run says which `wandb sync` uploads that from a machine with
    network."""
    wandb_project: str = ""
    """Weights & Biases project; empty: as WANDB_PROJECT says, else sketchgloc."""
    wandb_entity: str = ""
    """Weights & Biases user or team; empty: as WANDB_ENTITY says, else your default."""
    wandb_group: str = ""
    """Weights & Biases group of runs; empty: as WANDB_RUN_GROUP says, else none."""
    wandb_name: str = ""
    """Name of the run at Weights & Biases; empty: as WANDB_NAME says, else one is made up there."""
    wandb_timeout: float = 60.0
    """Seconds that Weights & Biases may take to answer at the start, while training goes on, and to upload the rest at
    the end, while the run waits."""
    tensorboard: bool = False
    """Write TensorBoard's files into the run's folder, which must be local: `tensorboard --logdir` shows them."""
    gallery: int = 8
    """Validation drawings that are shown redrawn, as they are and with their strokes moved, at each validation, where
    Weights & Biases or TensorBoard is on, and in gallery/ of the run's folder; 0: none."""

    def __post_init__(self) -> None:
        require(self.wandb_timeout >= 1, "log.wandb_timeout", "at least 1", self.wandb_timeout)
        # Rank 0 draws them while the others wait.
        require(0 <= self.gallery <= 256, "log.gallery", "from 0 to 256", self.gallery)


@dataclass(frozen=True)
class Config:
    """A whole training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)


class RunConfig(Protocol):
    """What the configurations of all runs have in common; each is a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def data(self) -> DataConfig:
        """Which drawings."""
        ...

    @property
    def optimizer(self) -> OptimizerConfig:
        """How the weights move."""
        ...

    @property
    def train(self) -> TrainConfig:
        """How long, where to."""
        ...

    @property
    def log(self) -> LogConfig:
        """Where metrics go."""
        ...
