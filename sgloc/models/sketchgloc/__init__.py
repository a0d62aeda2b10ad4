"""SketchGloc (METHOD 2 to 9) and the baselines derived from it by switches."""
