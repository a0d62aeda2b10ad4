"""Rec: the share of sketches that a classifier assigns to the right category (METHOD 10)."""

from sgloc.evaluate.bootstrap import Bootstrap, Estimate
from sgloc.evaluate.metric import Arrays, Metric, Models, Sketches, cell


class Rec(Metric):
    """Recognition; a sketch without strokes counts as not recognised."""

    name, position, header = "rec", 10, ("Rec",)

    def applies(self, models: Models) -> bool:
        """Return whether there is a classifier."""
        return models.classifier is not None

    def collect(self, sketches: Sketches, models: Models) -> Arrays:
        """Classify the sketches.

        Returns:
            is_right: bool [B].
        """
        assert models.classifier is not None
        return {"is_right": models.classifier.classify(sketches.strokes) == sketches.originals.labels}

    def summarise(self, arrays: Arrays, bootstrap: Bootstrap) -> Estimate:
        """Return the share of recognised sketches, from 0 to 1."""
        return bootstrap.mean(arrays["is_right"])

    def cells(self, summary: Estimate) -> list[str]:
        """Return the share in percent."""
        return [cell(summary, 100)]


METRIC = Rec()
