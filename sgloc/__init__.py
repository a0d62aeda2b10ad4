"""SketchGloc at scale: what a free-hand sketch's strokes look like in their places, learned by putting them back."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sgloc.inference.pretrained import Pretrained

__version__ = "0.1.0"


def load_pretrained(path: str, device: str = "cpu", kind: str = "") -> "Pretrained":
    """Load a trained model, to encode, generate and reorganize sketches with.

    Args:
        path: folder or URL of a model that `sgloc checkpoint export` wrote; of a run, of which the best checkpoint is
            taken; or of a checkpoint.
        device: where to put it, as torch spells it: "cpu", "cuda", "cuda:1".
        kind: name of the model, where neither this program nor an installed package has it: `package:Recipe`, whose
            code is imported.

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
        raise ConfigError(f"device {device!r} is not available ({said}); give another, such as 'cpu'") from error
    return load_model(path, place, kind)


def read_strokes(path: str) -> "list[list[npt.NDArray[np.float64]]]":
    """Read the drawings of a file, as `sgloc reorganize` does; an SVG is one drawing.

    A warning is logged if anything was left out of the file. The strokes are on the file's own canvas:
    `sgloc.inference.reorganize.reorganize_strokes` takes them as they are, `sgloc.sketch.simplify.simplify` brings them
    onto QuickDraw's.

    Args:
        path: path or URL of an .svg, .svgz, .ndjson or .json file.

    Returns:
        For each drawing its strokes in drawing order, float64 [n, 2] of absolute (x, y) each, y pointing down.

    Raises:
        DataError: if the file cannot be read, or holds no stroke.
    """
    from sgloc.sketch.reading import read_own

    return [strokes for _, strokes in read_own(path)]
