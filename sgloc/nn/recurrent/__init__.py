"""Recurrent cells and their forward and backward passes through time (METHOD 6)."""
