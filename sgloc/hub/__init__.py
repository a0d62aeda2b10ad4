"""Trained models by name, folder, run or URL: load, save, export, import."""
