"""The learning-rate schedule (METHOD 8)."""

from sgloc.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Return the learning rate of the step that follows `step` completed ones: exponential decay to the minimum."""
    return (
        config.learning_rate - config.min_learning_rate
    ) * config.learning_rate_decay**step + config.min_learning_rate
