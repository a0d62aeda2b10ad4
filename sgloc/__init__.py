"""SketchGloc at scale: what a free-hand sketch's strokes look like in their places, learned by putting them back."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sgloc.inference.pretrained import Pretrained

__version__ = "0.1.0"


def load_pretrained(path: str, device: str = "cpu") -> "Pretrained":
    """Load a trained model, to encode, generate and reorganize sketches with.

    Args:
        path: folder or URL of a model that `sgloc checkpoint export` wrote; of a run, of which the best checkpoint is
            taken; or of a checkpoint.
        device: where to put it, as torch spells it: "cpu", "cuda", "cuda:1".

    Raises:
        SglocError: if there is no such model there, or no such device.
    """
    # They take seconds, which `import sgloc` must not.
    import torch

    from sgloc.errors import ConfigError
    from sgloc.hub.load import load_model

    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"device {device!r} cannot be had here ({said}); give another, such as 'cpu'") from error
    return load_model(path, place)


def read_strokes(path: str) -> "list[list[npt.NDArray[np.float64]]]":
    """Read the drawings of a file, as `sgloc reorganize` does; an SVG is one drawing.

    A sentence on standard error says what was left out of the file, if anything was. The strokes are on the file's own
    canvas: `sgloc.inference.reorganize.reorganize_strokes` takes them as they are, `sgloc.sketch.simplify.simplify`
    brings them onto QuickDraw's.

    Args:
        path: path or URL of an .svg, .svgz, .ndjson or .json file.

    Returns:
        Of each drawing its strokes in the order in which they were drawn, float64 [n, 2] of absolute (x, y) each, y
        downwards.

    Raises:
        DataError: if the file cannot be read, or holds no stroke.
    """
    from sgloc.sketch.reading import read_own

    return [strokes for _, strokes in read_own(path)]
