"""Encoding and redrawing drawings with a trained network (METHOD 9); independent of runs and checkpoints."""
