"""Sketch-RNN as something to train."""

from sgloc.models.sketchgloc.recipe import RECIPE

__all__ = ["RECIPE"]
