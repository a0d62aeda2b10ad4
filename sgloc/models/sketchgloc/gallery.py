"""Galleries of validation sketches redrawn during training (METHOD 9)."""

import dataclasses
import logging

import torch

from sgloc.data.batch import Preparation
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.inference.redraw import gallery_rows, redraw
from sgloc.models.sketchgloc.network import SketchGloc

logger = logging.getLogger(__name__)

# r of METHOD 3 for the reorganized gallery when training does not move strokes.
_DISTURB_SCALE = 0.1
# An untrained model never ends a drawing; this limit bounds how long the other ranks wait for the gallery.
_MOST_POINTS = 400


class Gallery:
    """Redraws the same validation sketches each time, greedily and with the same noise.

    Drawing uses no random generator, so it does not affect training.

    Args:
        reader: reader of the validation split.
        prepare: preparation that turns its sketches into model input.
        count: number of sketches, spread evenly over the split.
    """

    def __init__(self, reader: ShardReader, prepare: Preparation, count: int) -> None:
        self.reader = reader
        self.count = min(count, reader.num_sketches)
        disturb = prepare.disturb or _DISTURB_SCALE
        self.preparations = {
            "gallery/generated": dataclasses.replace(prepare, disturb=0.0),
            "gallery/reorganized": dataclasses.replace(prepare, disturb=disturb),
        }
        self.failures: set[type[Exception]] = set()

    def draw(self, model: SketchGloc, device: torch.device) -> dict[str, bytes]:
        """Draw the galleries, as PNG by name.

        gallery/generated redraws the sketches; gallery/reorganized redraws them after their strokes were moved. If
        drawing fails, return no galleries; each type of error is logged once, as a warning.

        Args:
            model: the model, with complete (unsharded) weights, on the device.
            device: device to compute on.
        """
        was_training = model.training
        model.eval()
        try:
            return {name: self._draw(model, prepare, device) for name, prepare in self.preparations.items()}
        except Exception as error:
            # For example shards that are temporarily unreadable, or non-finite points.
            if type(error) not in self.failures:
                self.failures.add(type(error))
                logger.warning(
                    "the galleries cannot be drawn (%s); training continues and this warning is not repeated", error
                )
            return {}
        finally:
            model.train(was_training)

    def _draw(self, model: SketchGloc, prepare: Preparation, device: torch.device) -> bytes:
        # Imported late because it loads matplotlib, which takes a second.
        from sgloc.sketch.render import draw_gallery

        manifest = self.reader.manifest
        (packed,) = fixed_batches(self.reader, self.reader.spread(self.count), batch_size=self.count)
        max_points = min(manifest.longest_points, _MOST_POINTS)
        drawn = redraw(model, prepare(packed, device), prepare.scale, max_points=max_points)
        captions = [manifest.categories[number] for number in packed.category]
        return draw_gallery(gallery_rows(drawn, prepare.disturb), captions=captions)
