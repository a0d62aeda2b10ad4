"""Distribution of a drawing's next row, in log space (METHOD 6 and 7).

The point follows a mixture of bivariate normals, the pen state three logits.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sgloc.nn.product import at_least_float32
from sgloc.nn.rows import NUM_PEN_STATES

# Clamping limits that keep float32 finite: exp(20) * cosh(9)^2 still fits, and tanh(9) is the float32 just below 1.
_MOST_LOG_SIGMA = 20.0
_MOST_RHO_LOGIT = 9.0


@dataclass(frozen=True)
class Mixture:
    """A mixture of m bivariate normals for each of R rows.

    Attributes:
        logits: [R, m], logits of the component weights.
        mean_x, mean_y: [R, m], in normalised units.
        log_sigma_x, log_sigma_y: [R, m], logarithms of the standard deviations.
        rho_logit: [R, m]; its tanh is the correlation.
    """

    logits: Tensor
    mean_x: Tensor
    mean_y: Tensor
    log_sigma_x: Tensor
    log_sigma_y: Tensor
    rho_logit: Tensor

    def log_density(self, points: Tensor, floor: float = 0.0) -> Tensor:
        """Return log(density + floor) at points [R, 2], as [R]; `floor` lies between 0 and 1."""
        # With rho = tanh(r), 1 / (1 - rho^2) is cosh(r)^2, so the quadratic form is a sum of two squares and needs no
        # division.
        z_x = (points[:, :1] - self.mean_x) * torch.exp(-self.log_sigma_x)
        z_y = (points[:, 1:] - self.mean_y) * torch.exp(-self.log_sigma_y)
        quadratic = (z_x * torch.cosh(self.rho_logit) - z_y * torch.sinh(self.rho_logit)).square() + z_y.square()
        magnitude = self.rho_logit.abs()
        log_cosh = magnitude + F.softplus(-2 * magnitude) - math.log(2)
        log_normal = log_cosh - self.log_sigma_x - self.log_sigma_y - math.log(2 * math.pi) - 0.5 * quadratic
        log_density = torch.logsumexp(F.log_softmax(self.logits, dim=1) + log_normal, dim=1)
        if floor > 0:
            log_density = torch.logaddexp(log_density, torch.full_like(log_density, math.log(floor)))
        return log_density


def split_output(raw: Tensor) -> tuple[Tensor, Mixture]:
    """Split the decoder's raw outputs into pen logits and mixture, in at least float32.

    Args:
        raw: [R, 3 + 6 m]: the pen logits, then m columns each of weight logits, mean_x, mean_y, log sigma_x,
            log sigma_y and the correlation before its tanh.

    Returns:
        Pen logits [R, 3] (pen down, pen lift, end of drawing), and the mixture.
    """
    raw = at_least_float32(raw)
    logits, mean_x, mean_y, log_sigma_x, log_sigma_y, rho_logit = raw[:, NUM_PEN_STATES:].chunk(6, dim=1)
    return raw[:, :NUM_PEN_STATES], Mixture(
        logits=logits,
        mean_x=mean_x,
        mean_y=mean_y,
        log_sigma_x=log_sigma_x.clamp(-_MOST_LOG_SIGMA, _MOST_LOG_SIGMA),
        log_sigma_y=log_sigma_y.clamp(-_MOST_LOG_SIGMA, _MOST_LOG_SIGMA),
        rho_logit=rho_logit.clamp(-_MOST_RHO_LOGIT, _MOST_RHO_LOGIT),
    )
