"""The README's example in Python runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

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
