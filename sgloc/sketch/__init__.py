"""Drawings: representations, reading, simplification, augmentation and rendering."""
