"""Free-running decoding of codes, all sketches of a batch in lockstep (METHOD 9)."""

import math

import torch
from torch import Tensor

from sgloc import random
from sgloc.inference.network import Decoder
from sgloc.nn.mixture import Mixture, split_output
from sgloc.nn.rows import NUM_PEN_STATES, PEN_END, ROW_SIZE, start_rows
from sgloc.random import Purpose


@torch.no_grad()
def draw(decoder: Decoder, y: Tensor, random_key: Tensor, *, max_points: int, temperature: float) -> list[Tensor]:
    """Draw one sketch from each code.

    Args:
        decoder: the decoder, in evaluation mode.
        y: [B, Z], codes.
        random_key: int64 [B]; a code's drawing depends on its key, not on the other codes of the batch.
        max_points: number of points after which a drawing ends even if the model has not ended it.
        temperature: 0 is greedy: the likeliest component's mean and the likeliest pen state. Above 0, the logits of
            components and pen are divided by the temperature and the variances are multiplied by it.

    Returns:
        For each code, stroke-5 rows [n, 5] in absolute normalised coordinates, without the end row; n may be 0.
    """
    alive = torch.arange(len(y), device=y.device)
    stepper = decoder.stepper(y)
    row = start_rows(len(y), y)
    rows = y.new_zeros(len(y), max_points, ROW_SIZE)
    lengths = torch.zeros_like(alive)
    for step in range(max_points):
        if len(alive) == 0:
            break
        row = _next_row(stepper.step(row), random.fold(random_key[alive], step), temperature)
        goes_on = row[:, 2 + PEN_END] == 0
        stepper.keep(goes_on)
        alive, row = alive[goes_on], row[goes_on]
        rows[alive, step] = row
        lengths[alive] += 1
    return [sketch[:length] for sketch, length in zip(rows, lengths.tolist(), strict=True)]


def _next_row(raw: Tensor, key: Tensor, temperature: float) -> Tensor:
    """Choose the next stroke-5 rows [n, 5] from raw outputs [n, 3 + 6 m]; `key`, int64 [n], is that of this step."""
    pen_logits, mixture = split_output(raw)
    if temperature == 0:
        component, pen = mixture.logits.argmax(1), pen_logits.argmax(1)
        point = torch.stack([_pick(mixture.mean_x, component), _pick(mixture.mean_y, component)], dim=1)
    else:
        component = _sample(mixture.logits / temperature, random.fold(key, Purpose.SAMPLE_COMPONENT))
        pen = _sample(pen_logits / temperature, random.fold(key, Purpose.SAMPLE_PEN))
        point = _sample_point(mixture, component, random.fold(key, Purpose.SAMPLE_POINT), temperature)
    return torch.cat([point, torch.nn.functional.one_hot(pen, NUM_PEN_STATES).to(point.dtype)], dim=1)


def _pick(values: Tensor, component: Tensor) -> Tensor:
    return values.gather(1, component[:, None])[:, 0]


def _sample(logits: Tensor, key: Tensor) -> Tensor:
    """Sample one index per row of logits [n, m] by inverting the cumulative distribution."""
    cumulative = torch.softmax(logits, dim=1).cumsum(1)
    drawn = random.uniform(key, torch.zeros_like(key))[:, None] * cumulative[:, -1:]
    return (cumulative <= drawn).sum(1).clamp(max=logits.shape[1] - 1)


def _sample_point(mixture: Mixture, component: Tensor, key: Tensor, temperature: float) -> Tensor:
    """Sample points [n, 2] from the chosen components, with variances multiplied by the temperature."""
    noise = random.normal(key[:, None], torch.arange(2, device=key.device)).to(mixture.logits.dtype)
    noise_x, noise_y = (noise * math.sqrt(temperature)).unbind(1)
    rho = torch.tanh(_pick(mixture.rho_logit, component))
    x = _pick(mixture.mean_x, component) + torch.exp(_pick(mixture.log_sigma_x, component)) * noise_x
    correlated = rho * noise_x + torch.sqrt(1 - rho.square()) * noise_y
    y = _pick(mixture.mean_y, component) + torch.exp(_pick(mixture.log_sigma_y, component)) * correlated
    return torch.stack([x, y], dim=1)
