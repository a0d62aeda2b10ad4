"""Clipping of each of the original's variables by itself (METHOD 8 and 11), one after the other."""

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# The gates of a hyper cell that have a scale or a shift of their own: i, j, f, o of the input, then of the recurrence.
_SCALES, _SHIFTS = 8, 4


def variables(name: str, gradient: FloatArray) -> list[FloatArray]:
    """A tensor's gradient as those of the original's variables, views of it.

    Args:
        name: of the tensor.
        gradient: of any shape.
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
    """A gradient no longer than the norm, as `tf.clip_by_norm` gives it."""
    length = math.sqrt(sum(float(value) ** 2 for value in gradient.flat))
    return gradient * (norm / length) if length > norm else gradient


def clipped(name: str, gradient: FloatArray, norm: float) -> FloatArray:
    """The gradient of a tensor, each of the original's variables in it clipped by itself."""
    result = np.array(gradient)
    for target, source in zip(variables(name, result), variables(name, gradient), strict=True):
        target[...] = clip_by_norm(source, norm)
    return result
