"""SketchGloc at scale: models of the spatial layout of free-hand sketches, trained to put strokes in their places."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sgloc.inference.pretrained import Pretrained

__version__ = "0.1.0"


def load_pretrained(path: str, device: str = "cpu", kind: str = "") -> "Pretrained":
    """Load a trained model for encoding, generating and reorganizing sketches.

    Args:
        path: folder or URL of a model exported by `sgloc checkpoint export`, of a checkpoint, or of a run, whose best
            checkpoint is loaded.
        device: a torch device, such as "cpu", "cuda" or "cuda:1".
        kind: recipe of a model that neither sgloc nor an installed package provides, as `package:Recipe`; its code is
            imported.

    Returns:
        The model with its configuration.

    Raises:
        SglocError: if the path holds no such model, or the device is not available.
    """
    # Imported late: torch takes seconds to import, and `import sgloc` must be fast.
    import torch

    from sgloc.errors import ConfigError
    from sgloc.hub.load import load_model

    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"device {device!r} is not available ({said}); choose another, such as 'cpu'") from error
    return load_model(path, place, kind)


def read_strokes(path: str) -> "list[list[npt.NDArray[np.float64]]]":
    """Read the drawings in a file, as `sgloc reorganize` does; an SVG file is one drawing.

    Logs a warning if any part of the file is skipped. The strokes are in the coordinates of the file:
    `sgloc.inference.reorganize.reorganize_strokes` accepts them as they are, `sgloc.sketch.simplify.simplify` converts
    them to QuickDraw's canvas.

    Args:
        path: path or URL of an .svg, .svgz, .ndjson or .json file.

    Returns:
        For each drawing, its strokes in drawing order, each a float64 array [n, 2] of absolute (x, y), y pointing down.

    Raises:
        DataError: if the file cannot be read or contains no stroke.
    """
    from sgloc.sketch.reading import read_own

    return [strokes for _, strokes in read_own(path)]
