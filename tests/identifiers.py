"""Names of parameters in test ids: the same in every process and on every machine."""

import re
from pathlib import Path

import torch

_ROOT = Path(__file__).parents[1]
_MOST_CHARACTERS = 40


def name_parameter(value: object, name: str) -> str | None:
    """Name a parameter without an explicit id.

    Args:
        value: the parameter.
        name: the argument that takes it.

    Returns:
        The words of a string, joined by dashes and cut to 40 characters; the name of a torch dtype; None otherwise,
        which leaves it to pytest: it names numbers and classes itself and numbers anything else.

    Raises:
        ValueError: if neither the value nor its name yields a plain word on every machine.
    """
    if isinstance(value, Path) or (isinstance(value, str) and str(_ROOT) in value):
        raise ValueError(f"{name} contains a path of this machine; name it with ids= or pytest.param(..., id=...)")
    if isinstance(value, str):
        words = "-".join(re.findall(r"(?:-(?=\d))?\w(?:[\w.+-]*\w)?", value, flags=re.ASCII)) if value else "empty"
        if not words:
            raise ValueError(
                f"{name} is {value!r}, which contains no word; name it with ids= or pytest.param(..., id=...)"
            )
        if len(words) <= _MOST_CHARACTERS:
            return words
        return words[: _MOST_CHARACTERS + 1].rpartition("-")[0] or words[:_MOST_CHARACTERS]
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, bytes) or getattr(value, "__name__", "").startswith("<"):
        raise ValueError(f"{name} has a value without a name; name it with ids= or pytest.param(..., id=...)")
    return None
