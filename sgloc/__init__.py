"""SketchGloc at scale: what a free-hand sketch's strokes look like in their places, learned by putting them back."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgloc.evaluate.pretrained import Pretrained

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
    from sgloc.evaluate.load import load_model
    from sgloc.train.loggers.terminal import tell

    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"device {device!r} cannot be had here ({said}); give another, such as 'cpu'") from error
    return load_model(path, place, tell)
