"""QuickDraw's drawings: where they are, and readers of the four forms they come in (METHOD 1)."""
