"""Distance: mean distance of strokes from their right places, in percent of the sketch's size (METHOD 10)."""

import numpy as np

from sgloc.evaluate.bootstrap import Bootstrap, Estimate
from sgloc.evaluate.metric import Arrays, Metric, Models, Sketches, cell


class Distance(Metric):
    """Mean distance over all strokes except a sketch's first, which is never moved."""

    name, position, header = "distance", 30, ("distance",)

    def collect(self, sketches: Sketches, models: Models) -> Arrays:
        """Collect the distances of each sketch's strokes.

        Returns:
            sum: float64 [B], sum of the distances; strokes: int64 [B], number of strokes in the sum.
        """
        sums = []
        for given, clean, moves in zip(sketches.given, sketches.originals.strokes, sketches.moves, strict=True):
            points = np.concatenate([*clean, np.zeros((1, 2))])
            size = max(float(np.ptp(points, axis=0).max()), np.finfo(np.float64).tiny)
            # Strokes move rigidly, so any point gives the displacement.
            away = np.array([stroke[0] - own[0] for stroke, own in zip(given, clean, strict=True)])
            vectors = (away + moves)[1:]
            sums.append(100 * np.hypot(vectors[:, 0], vectors[:, 1]).sum() / size)
        return {"sum": np.array(sums), "strokes": np.array([len(strokes) - 1 for strokes in sketches.given])}

    def summarise(self, arrays: Arrays, bootstrap: Bootstrap) -> Estimate:
        """Return the mean distance, in percent of the sketch's size."""
        return bootstrap.ratio(arrays["sum"], arrays["strokes"].astype(np.float64))

    def cells(self, summary: Estimate) -> list[str]:
        """Return the mean distance, in percent of the sketch's size."""
        return [cell(summary)]


METRIC = Distance()
