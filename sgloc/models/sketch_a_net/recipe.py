"""The training recipe of Sketch-a-Net."""

import torch

from sgloc.data.manifest import Manifest
from sgloc.data.reader import ShardReader
from sgloc.models.sketch_a_net.batch import RasterPreparation
from sgloc.models.sketch_a_net.config import ClassifierConfig
from sgloc.models.sketch_a_net.network import SketchANet
from sgloc.sketch.raster import Augmentation
from sgloc.train.recipe import DataFacts


class SketchANetRecipe:
    """Recipe of Sketch-a-Net; see `sgloc.train.recipe.Recipe`."""

    config_type = ClassifierConfig

    def build_model(self, config: ClassifierConfig, data: DataFacts) -> SketchANet:
        """See `Recipe.build_model`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            return SketchANet(data.num_categories, config.model.width, config.model.keep)

    def preparations(self, config: ClassifierConfig, manifest: Manifest) -> tuple[RasterPreparation, RasterPreparation]:
        """See `Recipe.preparations`."""
        raster = config.raster
        augmentation = Augmentation(raster.stretch, raster.rotate, raster.shift, raster.flip)
        seed, line_width = config.train.seed, raster.line_width
        return RasterPreparation(seed, line_width, augmentation), RasterPreparation(seed, line_width)

    def gallery(self, config: ClassifierConfig, reader: ShardReader, manifest: Manifest) -> None:
        """Return None: the classifier draws no gallery."""


RECIPE = SketchANetRecipe()
