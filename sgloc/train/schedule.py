"""The learning rate (METHOD 8)."""

from sgloc.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """The learning rate of the step after `step` steps are done: it decays exponentially towards its minimum."""
    return (
        config.learning_rate - config.min_learning_rate
    ) * config.learning_rate_decay**step + config.min_learning_rate
