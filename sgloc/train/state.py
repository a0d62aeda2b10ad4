"""What a run is at a step, besides its tensors."""

from dataclasses import dataclass, field


@dataclass
class LossWindow:
    """Loss terms summed over the steps since the last line of metrics, of all ranks, by their names; divided by the
    number of sketches they are what the line says."""

    num_sketches: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, losses: dict[str, float], num_sketches: int) -> None:
        """Add the loss terms of a step."""
        self.num_sketches += num_sketches
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + loss

    def mean(self, name: str) -> float | None:
        """A loss term a sketch; None if all steps were skipped."""
        return self.sums[name] / self.num_sketches if self.num_sketches else None


@dataclass
class TrainState:
    """Everything that a resumed run needs to go on as if nothing had happened; all numbers, no generator.

    Attributes:
        step: optimizer steps done. The sketches consumed are step * global_batch: the whole state of the data side
            (DESIGN contract 1).
        validated_step: of the last validation that was finished; 0 before the first.
        best_loss: lowest validation loss so far.
        best_step: the step it was seen at; None before the first validation.
        saved_best_loss: lowest validation loss of a step whose checkpoint is committed.
        saved_best_step: that step; None before the first. While it is another than best_step, the best is not saved.
        num_bad_validations: validations since the best.
        seconds: time spent training, over all restarts.
        wandb_id: of the Weights & Biases run; None when there is none.
        window: losses since the last line of metrics.
        num_bad_steps: steps skipped in a row, up to now, because their loss or gradient was not finite.
        num_skipped_steps: of the whole run, for that reason.
        skipped_shards: training shards that stayed bad and are skipped, by their paths.
        num_skipped_sketches: positions of the order that were skipped for it.
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
        """Whether all steps are done, or validation has not improved for too long; patience 0: never too long."""
        return self.step >= num_steps or 0 < patience <= self.num_bad_validations
