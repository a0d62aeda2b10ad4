"""The training recipe of SketchGloc: initial weights, batches and galleries."""

import dataclasses

import torch

from sgloc.data.batch import Preparation
from sgloc.data.manifest import Manifest
from sgloc.data.origin import starts_at_first_point
from sgloc.data.reader import ShardReader
from sgloc.models.sketchgloc.config import Config
from sgloc.models.sketchgloc.gallery import Gallery
from sgloc.models.sketchgloc.network import SketchGloc
from sgloc.train.recipe import DataFacts


class SketchGlocRecipe:
    """Recipe of SketchGloc and its baselines."""

    config_type = Config

    def build_model(self, config: Config, data: DataFacts) -> SketchGloc:
        """See `Recipe.build_model`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            model = SketchGloc(config.model, config.loss, data.longest_points, config.train.checkpoint_decoder)
        if config.train.compile:
            model.compile_steps()
        return model

    def preparations(self, config: Config, manifest: Manifest) -> tuple[Preparation, Preparation]:
        """See `Recipe.preparations`."""
        data = config.data
        fixed = Preparation(
            scale=manifest.scale,
            seed=config.train.seed,
            disturb=data.disturb if data.validation_disturb is None else data.validation_disturb,
            max_node_points=config.model.max_node_points,
            from_first_point=starts_at_first_point(manifest, data.origin, data.path),
        )
        training = dataclasses.replace(
            fixed,
            disturb=data.disturb,
            augment_scale=data.augment_scale,
            drop_probability=data.drop_probability,
            translate=data.translate,
        )
        return training, fixed

    def gallery(self, config: Config, reader: ShardReader, manifest: Manifest) -> Gallery:
        """See `Recipe.gallery`."""
        _, fixed = self.preparations(config, manifest)
        shown = dataclasses.replace(fixed, disturb=config.data.disturb)
        return Gallery(reader, shown, config.log.gallery)


RECIPE = SketchGlocRecipe()
