"""Gradient clipping per variable of the original implementation (METHOD 8 and 11), one variable after the other."""

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Numbers of scale and shift blocks of a hyper cell: i, j, f, o of the input, then i, j, f, o of the recurrence; only
# the recurrence has shifts.
_SCALES, _SHIFTS = 8, 4


def variables(name: str, gradient: FloatArray) -> list[FloatArray]:
    """Split a tensor's gradient into views, one for each variable of the original that the tensor packs.

    Args:
        name: name of the tensor.
        gradient: array of any shape.
    """
    match name.rpartition(".")[2]:
        case "scale_down_weight":
            width = gradient.shape[1] // _SCALES
            return [gradient[:, k * width : (k + 1) * width] for k in range(_SCALES)]
        case "scale_down_bias":
            width = len(gradient) // _SCALES
            return [gradient[k * width : (k + 1) * width] for k in range(_SCALES)]
        case "scale_up":
            return [gradient[k] for k in range(_SCALES)]
        case "shift_down":
            width = gradient.shape[1] // _SHIFTS
            return [gradient[:, k * width : (k + 1) * width] for k in range(_SHIFTS)]
        case "shift_up":
            return [gradient[k] for k in range(_SHIFTS)]
        case _:
            return [gradient]


def clip_by_norm(gradient: FloatArray, norm: float) -> FloatArray:
    """Scale a gradient down to at most the given norm, as `tf.clip_by_norm` does."""
    length = math.sqrt(sum(float(value) ** 2 for value in gradient.flat))
    return gradient * (norm / length) if length > norm else gradient


def clipped(name: str, gradient: FloatArray, norm: float) -> FloatArray:
    """Return a tensor's gradient with each of the original's variables in it clipped separately."""
    result = np.array(gradient)
    for target, source in zip(variables(name, result), variables(name, gradient), strict=True):
        target[...] = clip_by_norm(source, norm)
    return result
