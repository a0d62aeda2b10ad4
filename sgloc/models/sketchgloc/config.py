"""The options of SketchGloc and of what it is compared with."""

from dataclasses import dataclass, field
from typing import Literal

from sgloc import config as shared
from sgloc.config import Options, OriginName, RunConfig, option

CellName = Literal["lstm", "layer_norm", "hyper"]
ModelName = Literal["sketchgloc", "sketch_rnn"]


@dataclass(frozen=True)
class EncoderConfig(Options, section="model.encoder"):
    """The recurrent stroke encoder (METHOD 5)."""

    cell: CellName = "lstm"
    """Recurrent cell of both directions."""
    hidden_size: int = option(512, at_least=1)
    """Units of each direction; a node's embedding is twice as wide."""
    recurrent_keep: float = option(0.9, above=0, at_most=1)
    """Probability that recurrent dropout keeps a unit of the candidate; 1 turns it off."""


@dataclass(frozen=True)
class DecoderConfig(Options, section="model.decoder"):
    """The recurrent decoder (METHOD 6)."""

    cell: CellName = "hyper"
    """Recurrent cell."""
    hidden_size: int = option(512, at_least=1)
    """Units."""
    recurrent_keep: float = option(0.9, above=0, at_most=1)
    """Probability that recurrent dropout keeps a unit of the candidate; 1 turns it off."""
    num_mixtures: int = option(20, at_least=1)
    """Components of the mixture that says where the next point is."""


@dataclass(frozen=True)
class ModelConfig(Options, section="model"):
    """The model's shape. The defaults are SketchGloc's published sizes."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    kind: ModelName = "sketchgloc"
    """sketch_rnn: the classical baseline, whose encoder reads the whole drawing as one sequence of points and knows no
    strokes and no graphs; the decoder is the same."""
    graph: str = "grid9"
    """Graphs between strokes. grid9: the nine of METHOD 4. The others are there to compare with: none, every stroke
    alone; complete, everything linked; temporal, neighbours in drawing order; nearest, those with the nearest boxes."""
    num_neighbours: int = option(3, at_least=1)
    """Strokes that a stroke is linked with in the graph `nearest`."""
    graph_layers: int = option(2, at_least=1)
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
    latent_size: int = option(128, at_least=1)
    """Width of the sketch code y."""
    hyper_size: int = option(256, at_least=1)
    """Units of the small LSTM inside a `hyper` cell."""
    hyper_embedding_size: int = option(32, at_least=1)
    """Width of the embeddings through which a `hyper` cell scales its gates."""
    hyper_dropout: Literal["main", "both"] = option("main", before="both")
    """Where recurrent dropout falls in a `hyper` cell: on the candidate of the main LSTM alone, as published, or on
    that of the small LSTM inside it too."""
    max_node_points: int | None = option(None, at_least=1)
    """Most points in a graph node; longer strokes become several nodes. null: a node is a whole stroke."""
    batch_norm_epsilon: float = option(1e-5, above=0)
    """What batch norm adds to the variance; weights that TensorFlow trained want 1.001e-5."""


@dataclass(frozen=True)
class DataConfig(shared.DataConfig):
    """Which drawings, in which order, changed how."""

    origin: OriginName = option("first_point", before="top_left")
    """Origin of drawings whose form has none of its own, which is every form but npz: the first point, or the top left
    corner of the canvas (METHOD 1)."""
    disturb: float = option(0.0, at_least=0)
    """How far strokes are moved, r of METHOD 3, in sketch sizes: 0 trains synthesis, 0.1 or 0.3 reorganization."""
    validation_disturb: float | None = option(None, at_least=0)
    """How far strokes are moved in validation, by which the best checkpoint is chosen; null: as far as in training. The
    original validates on undisturbed sketches, 0."""
    augment_scale: float = option(0.1, at_least=0, below=1)
    """x and y are scaled by factors from 1 - this to 1 + this, in training."""
    drop_probability: float = option(0.1, at_least=0, below=1)
    """Probability that an inner point of a stroke is dropped, in training."""
    translate: bool = option(True, before=False)
    """Move each whole sketch at random in training (METHOD 8), as published: the origin then lies anywhere over the
    middle two thirds of the sketch."""


@dataclass(frozen=True)
class LossConfig(Options, section="loss"):
    """What is minimised (METHOD 5 and 7)."""

    kl_weight: float = option(0.0, at_least=0)
    """Weight of the code's Kullback-Leibler divergence from a standard normal; the published loss has none.
    Sketch-RNN's 0.5, which counts a mean over the code and over 250 points, is about 1 in these sums."""
    kl_start: float = option(1.0, at_least=0, at_most=1)
    """Share of that weight at step 0, from which it grows to the whole; 1: the whole from the start. Sketch-RNN's is
    0.01."""
    kl_decay: float = option(0.99995, above=0, at_most=1)
    """Factor a step by which what is missing of the weight shrinks."""
    pen_loss_on_padding: bool = False
    """Count the pen's cross entropy on end rows up to the data set's longest drawing, as the original's training loss
    did. Costs the padding it computes."""
    density_floor: float = option(0.0, at_least=0, at_most=1)
    """Added to the mixture's density inside the logarithm. The original's 1e-6 means that no point costs more than 13.8
    nats."""


@dataclass(frozen=True)
class TrainConfig(shared.TrainConfig):
    """The run: how long, how often, where to."""

    checkpoint_decoder: bool = option(False, free=True)
    """Keep the decoder's state only every 32 steps, and compute the rest again in the backward pass. The result is the
    same; the decoder's memory becomes a fraction, its forward pass is computed twice."""
    compile: bool = option(False, free=True)
    """Run the recurrent cells by steps that torch.compile has compiled, for a few batch sizes: meant for CUDA, where a
    step is otherwise dozens of small kernels. The result is the same; the first steps take minutes longer."""


@dataclass(frozen=True)
class Config(RunConfig):
    """A run that trains SketchGloc."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
