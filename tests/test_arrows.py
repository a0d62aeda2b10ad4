"""Packages of sgloc/ import only packages below them (DESIGN, rooms)."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sgloc"
# The single-file modules of sgloc/ (dist, log, random, errors, ...) and storage are below all rooms.
BELOW = frozenset(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")) | {"storage"}
# The rooms that each room may import, besides itself and the modules below all rooms.
_SKETCH = {"sketch", "ops"}
_MODELS = {"train", "inference", "data", "nn", *_SKETCH}
_HUB = {"models", *_MODELS}
_TOP = {"hub", *_HUB}
ROOMS = {
    "ops": set(),
    "sketch": {"ops"},
    "nn": _SKETCH,
    "inference": {"nn", *_SKETCH},
    "data": _SKETCH,
    "train": {"data", *_SKETCH},
    "models": _MODELS,
    "hub": _HUB,
    "evaluate": _TOP,
    "report": _TOP,
    "demo": _TOP,
    "doctor": _TOP,
    "bench": {"evaluate", *_TOP},
    "cli": {"bench", "doctor", "demo", "report", "evaluate", *_TOP},
}


def room_of(path: Path) -> str:
    """Return the room of a file: its top-level folder in sgloc/, or the name of a single-file module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of every sgloc module that a source imports, including inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}"
            # `from sgloc import dist` imports sgloc.dist.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names = [str(one.value) for one in node.args if isinstance(one, ast.Constant)]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.startswith("sgloc."))


def wrong_imports(path: Path) -> Iterator[str]:
    """Yield a description of every import of a file that the table forbids."""
    room, name = room_of(path), path.relative_to(PACKAGE)
    allowed = {room, *BELOW, *ROOMS.get(room, set())}
    for line, module in imported_modules(path.read_text()):
        imported = module.split(".")[1]
        if (imported in ROOMS or imported in BELOW) and imported not in allowed:
            rooms = ", ".join(sorted(ROOMS.get(room, set()))) or "no room"
            yield f"sgloc/{name}:{line} imports {module}; {room} may import {rooms}"


FILES = sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) not in ("__init__", "__main__"))


@pytest.mark.parametrize("room", sorted({room_of(path) for path in FILES}))
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    assert room in ROOMS or room in BELOW
    for path in FILES:
        if room_of(path) == room:
            found = list(wrong_imports(path))
            assert not found, "\n".join(found)


def test_the_table_has_no_cycle() -> None:
    graphlib.TopologicalSorter(ROOMS).prepare()


def test_imports_inside_functions_and_by_name_are_seen() -> None:
    source = "def f():\n    from sgloc import hub\n    import_module = None\n    i.import_module('sgloc.cli.train')"
    assert list(imported_modules(source)) == [(2, "sgloc.hub"), (4, "sgloc.cli.train")]
