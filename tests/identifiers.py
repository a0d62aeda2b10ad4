"""How a parameter is named in a test's id: the same words in every process and on every machine."""

import re
from pathlib import Path

import torch

_ROOT = Path(__file__).parents[1]
_MOST_CHARACTERS = 40


def name_parameter(value: object, name: str) -> str | None:
    """Name a parameter without an explicit id; None leaves it to pytest, which takes a number or a class by its name
    and numbers anything else.

    Args:
        value: the parameter.
        name: the argument that takes it.

    Returns:
        The words of a text, joined by dashes and cut to 40 characters.

    Raises:
        ValueError: if neither its value nor its name would make a plain word on every machine.
    """
    if isinstance(value, Path) or (isinstance(value, str) and str(_ROOT) in value):
        raise ValueError(f"{name} holds a path of this machine; name it with ids= or pytest.param(..., id=...)")
    if isinstance(value, str):
        words = "-".join(re.findall(r"(?:-(?=\d))?\w(?:[\w.+-]*\w)?", value, flags=re.ASCII)) if value else "empty"
        if not words:
            raise ValueError(f"{name} is {value!r}, which has no word; name it with ids= or pytest.param(..., id=...)")
        if len(words) <= _MOST_CHARACTERS:
            return words
        return words[: _MOST_CHARACTERS + 1].rpartition("-")[0] or words[:_MOST_CHARACTERS]
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, bytes) or getattr(value, "__name__", "").startswith("<"):
        raise ValueError(f"{name} has no name of its own; name it with ids= or pytest.param(..., id=...)")
    return None
