"""Training: the trainer, its engines, its checkpoints and its loggers."""
