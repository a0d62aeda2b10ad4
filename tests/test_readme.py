"""The README's Python example runs verbatim, and torchrun accepts the documented command lines."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from torch.distributed.run import get_args_parser

from tests.checkpoints import make_model, save_model


def test_the_example_in_python_runs(tmp_path: Path, tiny_shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    save_model(tmp_path / "runs/quickstart", tiny_shards, make_model())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    cart, codes, moved = names["cart"], names["codes"], names["moved"]
    assert isinstance(cart, np.ndarray)
    assert isinstance(codes, np.ndarray)
    assert isinstance(moved, list)
    assert codes.shape == (1, 5)
    assert moved[0].shape == cart.shape


TOP = Path(__file__).parents[1]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_torchrun_takes_the_commands_of_the_documentation(page: Path) -> None:
    # torchrun rejects a command's option if its name is a prefix of one of torchrun's own options.
    for line in re.findall(r"(?:^|`)torchrun ([^`#\n]+-m sgloc [^`#\n]+)", page.read_text(), re.MULTILINE):
        words = shlex.split(line)
        assert get_args_parser().parse_args(words).training_script == "sgloc", line
