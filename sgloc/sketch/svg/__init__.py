"""SVG files: which of their shapes are drawn as lines, and where; and our own drawings written as SVG."""
