"""Cells with random parameters, and their parameters and masks in the oracle's form."""

import numpy as np
import pytest
import torch

from sgloc.models.sketchgloc.config import CellName, DecoderConfig, ModelConfig
from sgloc.models.sketchgloc.encoder import cell_of
from sgloc.nn.recurrent.cells import Cell

CELLS: list[CellName] = ["lstm", "layer_norm", "hyper"]
# Each cell, and whether dropout also applies to the inner LSTM of a hyper cell.
CELLS_AND_DROPS = [
    pytest.param("lstm", False, id="lstm"),
    pytest.param("layer_norm", False, id="layer_norm"),
    pytest.param("hyper", False, id="hyper"),
    pytest.param("hyper", True, id="hyper drops both"),
]
LENGTHS = [3, 1, 5, 3, 2]
INPUT, HIDDEN, HYPER, EMBEDDING = 4, 6, 5, 3


def random_cell(name: CellName, seed: int = 0, drop_both: bool = False) -> Cell:
    """Return a cell with random values for all parameters: an initial value such as 0 or 1 could hide an error."""
    torch.manual_seed(seed)
    config = ModelConfig(
        hyper_size=HYPER, hyper_embedding_size=EMBEDDING, hyper_dropout="both" if drop_both else "main"
    )
    cell = cell_of(config, DecoderConfig(name, HIDDEN), INPUT).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4 + 0.1)
    return cell


def oracle_parameters(cell: Cell) -> dict[str, np.ndarray]:
    return {name.replace("norm.", ""): value.detach().numpy() for name, value in cell.named_parameters()}


def split_mask(cell: Cell, mask: torch.Tensor) -> tuple[np.ndarray, ...]:
    parts = mask.tensor_split([cell.hidden_size])
    return tuple(part.numpy() for part in parts if len(part))
