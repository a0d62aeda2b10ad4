"""One rank of the check `ranks`: `python -m benchmarks.gpu_checks.rank CONFIG [--shared]`.

NCCL refuses two ranks on one GPU; with --shared they share it through gloo.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from sgloc import dist
from sgloc.models.sketchgloc.config import Config
from sgloc.models.sketchgloc.recipe import SketchGlocRecipe
from sgloc.train.trainer import train


def _config(sections: dict[str, Any]) -> Config:
    defaults = Config()
    model = dict(sections.pop("model"))
    cells = {name: type(getattr(defaults.model, name))(**model.pop(name)) for name in ("encoder", "decoder")}
    others = {name: type(getattr(defaults, name))(**options) for name, options in sections.items()}
    return Config(model=type(defaults.model)(**model, **cells), **others)


def main() -> None:
    """Train with the configuration file named on the command line."""
    path, *options = sys.argv[1:]
    if "--shared" in options:
        vars(dist).update(backend=lambda device: "gloo", select_device=lambda *_: torch.device("cuda", 0))
    train(_config(json.loads(Path(path).read_text())), "never", SketchGlocRecipe())


if __name__ == "__main__":
    main()
