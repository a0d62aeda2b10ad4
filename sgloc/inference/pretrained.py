"""The Python interface to a trained model: stroke-3 arrays in, codes or stroke-3 arrays out."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgloc.config import OriginName, require
from sgloc.errors import ConfigError
from sgloc.inference.network import Network
from sgloc.inference.sampling import draw
from sgloc.inference.sketches import (
    Polylines,
    Stroke3,
    batch_of,
    keys_of,
    polylines_of_rows,
    polylines_of_stroke3,
    stroke3_of_polylines,
)
from sgloc.inference.stroke_matching import placed
from sgloc.tf32 import float32_products


@dataclass(frozen=True)
class Pretrained:
    """A trained model, created by `sgloc.load_pretrained`.

    Sketches are stroke-3: [points, 3] arrays of (dx, dy, pen_lift), integer or float, in the units of the training
    data. For QuickDraw's simplified drawings that is a canvas of 255.

    Attributes:
        model: the network, in evaluation mode, on its device.
        scale: scale of the training data set (METHOD 1).
        longest_points: number of points of that data set's longest drawing.
        data_identity: SHA-256 of that data set's manifest.
        origin: origin of drawings in formats that define none (METHOD 1). Stroke-3 does: its first row starts there.
    """

    model: Network
    scale: float
    longest_points: int
    data_identity: str
    origin: OriginName = "first_point"

    @functools.cached_property
    def code_width(self) -> int:
        """Z, the width of the codes."""
        with torch.no_grad():
            return self.model.encode(self.model.toy_batch().to(device=self.device)).y.shape[1]

    @property
    def max_node_points(self) -> int | None:
        """Maximum number of points in a graph node; None if a node is a whole stroke."""
        return getattr(self.model.config, "max_node_points", None)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    def encode(self, sketches: Sequence[Stroke3], *, batch_size: int = 256) -> npt.NDArray[np.float32]:
        """Encode sketches as codes: the mean mu of METHOD 5.5, float32 [N, Z].

        Args:
            sketches: stroke-3 arrays, each with at least one point.
            batch_size: number of sketches encoded at once.

        Raises:
            DataError: if a sketch is not stroke-3; the message says which.
            ConfigError: if an option is out of range.
        """
        return self.encode_polylines(_strokes_of(sketches), batch_size=batch_size)

    def generate(
        self,
        codes: npt.ArrayLike,
        *,
        temperature: float = 0.0,
        max_points: int = 0,
        seed: int = 0,
        batch_size: int = 256,
    ) -> list[npt.NDArray[np.float32]]:
        """Draw a sketch from each code (METHOD 9): stroke-3, float32 [n, 3] each, in source units; n may be 0.

        Args:
            codes: [N, Z].
            temperature: sampling temperature; 0 is greedy, 0.24 as published.
            max_points: maximum number of points of a sketch; 0 uses that of the longest training drawing.
            seed: seed of the sampling.
            batch_size: number of sketches drawn at once.

        Raises:
            ConfigError: if the codes have another shape or are not finite, or an option is out of range.
        """
        drawn = self.draw_codes(codes, temperature, max_points, seed, batch_size)
        return [stroke3_of_polylines(polylines_of_rows(rows, self.scale)) for rows in drawn]

    def reorganize(
        self,
        sketches: Sequence[Stroke3],
        *,
        keep_strokes: bool = False,
        temperature: float = 0.0,
        max_points: int = 0,
        seed: int = 0,
        batch_size: int = 256,
    ) -> list[npt.NDArray[np.float32]]:
        """Redraw sketches with every stroke where it belongs: stroke-3, float32 [n, 3] each, in source units.

        Args:
            sketches: stroke-3 arrays, each with at least one point.
            keep_strokes: return the sketches' own strokes, each moved rigidly to its place in the redrawing.
            temperature, max_points, seed, batch_size: see `generate`.

        Raises:
            DataError: if a sketch is not stroke-3; the message says which.
            ConfigError: if an option is out of range.
        """
        strokes = _strokes_of(sketches)
        codes = self.encode_polylines(strokes, batch_size=batch_size)
        drawn = self.draw_codes(codes, temperature, max_points, seed, batch_size)
        redrawn = [polylines_of_rows(rows, self.scale) for rows in drawn]
        if keep_strokes:
            redrawn = [placed(*pair) for pair in zip(strokes, redrawn, strict=True)]
        return [stroke3_of_polylines(one) for one in redrawn]

    @torch.no_grad()
    def encode_polylines(self, sketches: Sequence[Polylines], *, batch_size: int = 256) -> npt.NDArray[np.float32]:
        """Encode sketches given as lists of strokes, each [n, 2] of absolute (x, y); see `encode`."""
        require(batch_size >= 1, "batch_size", "at least 1", batch_size)
        codes = np.zeros((len(sketches), self.code_width), dtype=np.float32)
        with float32_products(self.device):
            for start in range(0, len(sketches), batch_size):
                some = sketches[start : start + batch_size]
                keys = keys_of(0, len(some))
                batch = batch_of(some, self.scale, self.max_node_points, keys, self.device)
                codes[start : start + batch_size] = self.model.encode(batch).y.float().cpu().numpy()
        return codes

    def draw_codes(
        self, codes: npt.ArrayLike, temperature: float = 0.0, max_points: int = 0, seed: int = 0, batch_size: int = 256
    ) -> list[Tensor]:
        """Draw sketches as stroke-5 rows [n, 5] in absolute normalised coordinates; see `generate`."""
        require(batch_size >= 1, "batch_size", "at least 1", batch_size)
        require(0 <= temperature < float("inf"), "temperature", "at least 0", temperature)
        require(max_points >= 0, "max_points", "at least 0", max_points)
        rows = torch.from_numpy(np.array(codes, dtype=np.float32))
        if rows.ndim != 2 or rows.shape[1] != self.code_width or not bool(torch.isfinite(rows).all()):
            raise ConfigError(f"codes must be finite and [sketches, {self.code_width}], not {list(rows.shape)}")
        keys = keys_of(seed, len(rows)).to(self.device)
        drawn: list[Tensor] = []
        most = max_points or self.longest_points
        with float32_products(self.device):
            for y, key in zip(rows.to(self.device).split(batch_size), keys.split(batch_size), strict=True):
                drawn += draw(self.model, y, key, max_points=most, temperature=temperature) if len(y) else []
        return drawn


def _strokes_of(sketches: Sequence[Stroke3]) -> list[Polylines]:
    return [polylines_of_stroke3(sketch, number) for number, sketch in enumerate(sketches)]
