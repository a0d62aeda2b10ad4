"""SketchGloc at scale: what a free-hand sketch's strokes look like in their places, learned by putting them back."""

__version__ = "0.1.0"
