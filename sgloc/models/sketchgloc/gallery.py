"""What the model draws of the validation sketches, while it learns (METHOD 9)."""

import dataclasses
import logging

import torch

from sgloc.data.batch import Preparation
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.inference.redraw import gallery_rows, redraw
from sgloc.models.sketchgloc.network import SketchGloc

logger = logging.getLogger(__name__)

# METHOD 3's r where the training moves no strokes.
_DISTURB_SCALE = 0.1
# An untrained model does not end its drawings. As many points bound the time that the other ranks wait.
_MOST_POINTS = 400


class Gallery:
    """Draws the same sketches of the validation split each time, greedily and with the same noise; no generator is
    touched, and training goes on as if nothing had been drawn.

    Args:
        reader: of the validation split.
        prepare: how its sketches become input.
        count: sketches, spread evenly over the split.
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
        """The galleries by their names, as PNG: gallery/generated redraws the sketches, gallery/reorganized redraws
        them after their strokes were moved. What cannot be drawn is left out, and a warning says why, once.

        Args:
            model: whose weights are whole, on the device.
            device: to compute on.
        """
        was_training = model.training
        model.eval()
        try:
            return {name: self._draw(model, prepare, device) for name, prepare in self.preparations.items()}
        except Exception as error:
            # Such as shards that cannot be read for now, or points that are not finite.
            if type(error) not in self.failures:
                self.failures.add(type(error))
                logger.warning("the galleries cannot be drawn (%s); training goes on, and this is not repeated", error)
            return {}
        finally:
            model.train(was_training)

    def _draw(self, model: SketchGloc, prepare: Preparation, device: torch.device) -> bytes:
        # It imports matplotlib, which takes a second.
        from sgloc.sketch.render import draw_gallery

        manifest = self.reader.manifest
        (packed,) = fixed_batches(self.reader, self.reader.spread(self.count), batch_size=self.count)
        max_points = min(manifest.longest_points, _MOST_POINTS)
        drawn = redraw(model, prepare(packed, device), prepare.scale, max_points=max_points)
        captions = [manifest.categories[number] for number in packed.category]
        return draw_gallery(gallery_rows(drawn, prepare.disturb), captions=captions)
