"""The state of a run at a step, apart from its tensors."""

from dataclasses import dataclass, field


@dataclass
class LossWindow:
    """Sums of each loss term over all ranks and over the steps since the last metrics record, for their means."""

    num_sketches: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, losses: dict[str, float], num_sketches: int) -> None:
        """Add the loss terms of a step, summed over its `num_sketches` sketches."""
        self.num_sketches += num_sketches
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + loss

    def mean(self, name: str) -> float | None:
        """Return a loss term per sketch, or None if every step was skipped."""
        return self.sums[name] / self.num_sketches if self.num_sketches else None


@dataclass
class TrainState:
    """Everything besides tensors that a run needs to resume exactly; no random generator has any state.

    Attributes:
        step: number of steps done. Training has consumed step * global_batch positions of the data order, which is all
            the state that the data has (DESIGN contract 1).
        validated_step: step of the last completed validation; 0 before the first.
        best_loss: lowest validation loss so far.
        best_step: step of the lowest validation loss; None before the first validation.
        saved_best_loss: lowest validation loss among committed checkpoints.
        saved_best_step: step of that checkpoint; None before the first. If it differs from best_step, the best weights
            are not saved.
        num_bad_validations: number of validations since the best.
        seconds: training time across restarts, in seconds.
        wandb_id: id of the Weights & Biases run; None without one.
        window: losses since the last metrics record.
        num_bad_steps: number of consecutive steps, up to now, skipped for a non-finite loss or gradient.
        num_skipped_steps: total number of steps skipped for a non-finite loss or gradient.
        skipped_shards: paths of the training shards that stayed unreadable and are skipped.
        num_skipped_sketches: number of positions of the data order skipped because of `skipped_shards`.
    """

    step: int = 0
    validated_step: int = 0
    best_loss: float = float("inf")
    best_step: int | None = None
    saved_best_loss: float = float("inf")
    saved_best_step: int | None = None
    num_bad_validations: int = 0
    seconds: float = 0.0
    wandb_id: str | None = None
    window: LossWindow = field(default_factory=LossWindow)
    num_bad_steps: int = 0
    num_skipped_steps: int = 0
    skipped_shards: list[str] = field(default_factory=list)
    num_skipped_sketches: int = 0

    def is_finished(self, num_steps: int, patience: int) -> bool:
        """Return whether all steps are done or the last `patience` validations brought no improvement (0: never)."""
        return self.step >= num_steps or 0 < patience <= self.num_bad_validations
