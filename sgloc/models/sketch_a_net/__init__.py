"""Sketch-a-Net, the classifier behind Rec (METHOD 10)."""
