"""SketchGloc (METHOD 2 to 9), with the baselines that differ from it by a switch."""
