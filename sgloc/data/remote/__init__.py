"""Reading from file systems that are elsewhere and may fail."""
