"""Options of SketchGloc and of its baselines."""

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
    """Recurrent cell, used in both directions."""
    hidden_size: int = option(512, at_least=1)
    """Units per direction; a node embedding is twice as wide."""
    recurrent_keep: float = option(0.9, above=0, at_most=1)
    """Probability that recurrent dropout keeps a unit of the candidate; 1 disables dropout."""


@dataclass(frozen=True)
class DecoderConfig(Options, section="model.decoder"):
    """The recurrent decoder (METHOD 6)."""

    cell: CellName = "hyper"
    """Recurrent cell."""
    hidden_size: int = option(512, at_least=1)
    """Units of the recurrent cell."""
    recurrent_keep: float = option(0.9, above=0, at_most=1)
    """Probability that recurrent dropout keeps a unit of the candidate; 1 disables dropout."""
    num_mixtures: int = option(20, at_least=1)
    """Components of the mixture density of the next point."""


@dataclass(frozen=True)
class ModelConfig(Options, section="model"):
    """Model architecture; the defaults are SketchGloc's published sizes."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    kind: ModelName = "sketchgloc"
    """sketchgloc, or sketch_rnn: the classical baseline with the same decoder, whose encoder reads the whole drawing as
    one sequence of points, without strokes or graphs."""
    graph: str = "grid9"
    """Graphs between strokes. grid9: the nine of METHOD 4. The others are baselines: none, no edges between
    strokes; complete, every pair of strokes; temporal, neighbours in drawing order; nearest, the strokes with the
    nearest box centres."""
    num_neighbours: int = option(3, at_least=1)
    """Number of nearest strokes that a stroke is connected to in the graph `nearest`."""
    graph_layers: int = option(2, at_least=1)
    """Graph convolution layers."""
    graph_weights: Literal["separate", "shared"] = "separate"
    """separate: each of the nine graphs has its own weights. shared: one set of weights serves all nine, which makes
    the layers blind to where a neighbour lies."""
    graph_center: bool = True
    """Also pass messages over the graph of the grid's centre cell, in which every stroke is connected to itself."""
    graph_mean: bool = False
    """In the nine graphs, average over a stroke's neighbours instead of summing as published."""
    graph_relation: Literal["perimeter", "middle"] = "perimeter"
    """Grid cells of a stroke that another stroke occupies. perimeter: the border of the block of cells that its
    bounding box covers, as published. middle: only the cell containing the centre of its box."""
    latent_size: int = option(128, at_least=1)
    """Width of the sketch code y."""
    hyper_size: int = option(256, at_least=1)
    """Units of the small LSTM inside a `hyper` cell."""
    hyper_embedding_size: int = option(32, at_least=1)
    """Width of the embeddings from which a `hyper` cell computes the scales of its gates."""
    hyper_dropout: Literal["main", "both"] = option("main", before="both")
    """Recurrent dropout in a `hyper` cell. main: only on the candidate of the main LSTM, as published. both: on the
    candidate of the small LSTM as well."""
    max_node_points: int | None = option(None, at_least=1)
    """Maximum number of points in a graph node; longer strokes are split into several nodes. null: a node is a whole
    stroke."""
    batch_norm_epsilon: float = option(1e-5, above=0)
    """Epsilon added to the variance in batch norm; weights trained in TensorFlow need 1.001e-5."""


@dataclass(frozen=True)
class DataConfig(shared.DataConfig):
    """The training data: which drawings, in which order, and how they are augmented."""

    origin: OriginName = option("first_point", before="top_left")
    """Origin of drawings in formats that define none (all but npz): the first point, or the top left corner of the
    canvas (METHOD 1)."""
    disturb: float = option(0.0, at_least=0)
    """How far to move strokes, in sketch sizes (r of METHOD 3): 0 trains synthesis, 0.1 or 0.3 reorganization."""
    validation_disturb: float | None = option(None, at_least=0)
    """How far to move strokes in validation, which selects the best checkpoint; null: as far as in training. 0, as in
    the original, validates on undisturbed sketches."""
    augment_scale: float = option(0.1, at_least=0, below=1)
    """In training, scale x and y by independent random factors between 1 - augment_scale and 1 + augment_scale; 0
    disables."""
    drop_probability: float = option(0.1, at_least=0, below=1)
    """In training, drop each inner point of a stroke with this probability; 0 disables."""
    translate: bool = option(True, before=False)
    """In training, translate each whole sketch at random (METHOD 8), as published: the origin may fall anywhere over
    the middle two thirds of the sketch."""


@dataclass(frozen=True)
class LossConfig(Options, section="loss"):
    """The training loss (METHOD 5 and 7)."""

    kl_weight: float = option(0.0, at_least=0)
    """Weight of the code's Kullback-Leibler divergence from a standard normal; 0, as published, disables the term.
    Sketch-RNN's 0.5 weights a mean over the code and over 250 points; in the sums used here that is about 1."""
    kl_start: float = option(1.0, at_least=0, at_most=1)
    """Fraction of kl_weight in effect at step 0, from which the weight grows to its full value; 1 applies the full
    weight from the start. Sketch-RNN uses 0.01."""
    kl_decay: float = option(0.99995, above=0, at_most=1)
    """Factor by which the difference to the full kl_weight shrinks at every step."""
    pen_loss_on_padding: bool = False
    """Also count the pen's cross entropy on end rows up to the data set's longest drawing, as the original's training
    loss did. The padding has to be computed, which makes steps slower."""
    density_floor: float = option(0.0, at_least=0, at_most=1)
    """Added to the mixture density inside the logarithm. The original's 1e-6 caps the loss of a point at 13.8 nats."""


@dataclass(frozen=True)
class TrainConfig(shared.TrainConfig):
    """The run: its length, its intervals, its folder."""

    checkpoint_decoder: bool = option(False, free=True)
    """Store the decoder's state only every 32 steps and recompute the others in the backward pass. The result is the
    same; the decoder needs a fraction of the memory but runs its forward pass twice."""
    compile: bool = option(False, free=True)
    """Run the recurrent cells with steps compiled by torch.compile for a few batch sizes; meant for CUDA, where a step
    otherwise launches dozens of small kernels. The result is the same; the first steps take minutes longer."""


@dataclass(frozen=True)
class Config(RunConfig):
    """Configuration of a run that trains SketchGloc or one of its baselines."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
