"""Reading of strokes from SVG files, and writing of drawings as SVG."""
