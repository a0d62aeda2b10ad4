"""The test sets include the oldest versions that setup.cfg allows, and the README lists every set."""

import configparser
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SETS = sorted((REPOSITORY / "tests/versions").glob("*.txt"))
PACKAGES = ("torch", "triton", "numpy")


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==(\S+)$", path.read_text(), re.MULTILINE))


def python_of(path: Path) -> str:
    (version,) = re.findall(r"^# Python (\S+)\n", path.read_text())
    assert isinstance(version, str)
    return version


def minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_oldest_version_is_tested(package: str) -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    extras = setup["options.extras_require"].values()
    required = "\n".join([setup["options"]["install_requires"], *extras])
    (oldest,) = set(re.findall(rf"^{package}>=([\d.]+)", required, re.MULTILINE))
    assert min(minor(pins(path)[package]) for path in SETS) == minor(oldest)


def test_the_oldest_python_is_tested() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert setup["options"]["python_requires"] == f">={min(map(python_of, SETS), key=minor)}"


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_the_readme_lists_a_set(path: Path) -> None:
    versions = " | ".join([python_of(path), *(pins(path)[package] for package in PACKAGES)])
    assert f"(tests/versions/{path.name}) | {versions} |" in (REPOSITORY / "README.md").read_text()


def test_the_readme_lists_the_constraints() -> None:
    path = REPOSITORY / "constraints.txt"
    versions = " | ".join(pins(path)[package] for package in PACKAGES)
    assert re.search(
        rf"\(constraints\.txt\) \| [\d.]+ \| {re.escape(versions)} \|", (REPOSITORY / "README.md").read_text()
    )
