"""Rec: the share of sketches that a classifier takes for their category (METHOD 10)."""

from sgloc.evaluate.bootstrap import Bootstrap, Estimate
from sgloc.evaluate.metric import Arrays, Metric, Models, Sketches, cell


class Rec(Metric):
    """Recognition; a sketch without a stroke is recognised as nothing."""

    name, position, header = "rec", 10, ("Rec",)

    def applies(self, models: Models) -> bool:
        """It needs a classifier."""
        return models.classifier is not None

    def collect(self, sketches: Sketches, models: Models) -> Arrays:
        """is_right: bool [B]."""
        assert models.classifier is not None
        return {"is_right": models.classifier.classify(sketches.strokes) == sketches.originals.labels}

    def summarise(self, arrays: Arrays, bootstrap: Bootstrap) -> Estimate:
        """A share, from 0 to 1."""
        return bootstrap.mean(arrays["is_right"])

    def cells(self, summary: Estimate) -> list[str]:
        """The share in percent."""
        return [cell(summary, 100)]


METRIC = Rec()
