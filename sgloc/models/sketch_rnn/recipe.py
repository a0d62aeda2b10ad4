"""The training recipe of Sketch-RNN."""

from sgloc.models.sketchgloc.recipe import RECIPE

__all__ = ["RECIPE"]
