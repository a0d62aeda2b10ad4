"""Sketch-RNN (Ha and Eck 2018), a baseline: SketchGloc with another encoder, selected by its option `kind`."""
