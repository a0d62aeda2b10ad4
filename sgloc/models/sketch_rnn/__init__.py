"""Sketch-RNN (Ha and Eck 2018), to compare with: a switch of SketchGloc, `kind`, which changes its encoder."""
