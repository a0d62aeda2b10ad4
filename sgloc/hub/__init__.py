"""Trained models by name, folder, run or URL: loading, saving, export and import."""
