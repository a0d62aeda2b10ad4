"""The record of a run: its options, with secrets masked and paths absolute, and the versions of its software."""

import dataclasses
import functools
import importlib.metadata
import json
import operator
import os
import os.path
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import sgloc
from sgloc.config import RunConfig, walk
from sgloc.masking import mask, mask_all
from sgloc.storage import Storage
from sgloc.strict_json import to_json

_UNKNOWN = "unknown"
_PACKAGE = Path(sgloc.__file__).resolve().parent


def write_record(config: RunConfig) -> None:
    """Write config.yaml, the resolved configuration, and versions.json into the run folder.

    Raises:
        DataError: if the folder is not writable.
    """
    options = yaml.safe_dump(recorded_options(config), sort_keys=False)
    program = f"{to_json(versions(), indent=1)}\n"
    Storage(config.train.run).save({"config.yaml": options.encode(), "versions.json": program.encode()})


def recorded_options(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as nested dictionaries that are safe to store, display and send to services."""
    options: dict[str, Any] = dataclasses.asdict(config)
    for name, option, place in walk(config):
        if option.metadata.get("place"):
            *sections, last = name.split(".")
            functools.reduce(operator.getitem, sections, options)[last] = recorded_place(place)
    return mask_all(options)  # type: ignore[no-any-return]


def recorded_place(place: str) -> str:
    """Return a path as an absolute path, or a URL with its secrets masked."""
    is_path = bool(place) and "://" not in place and "::" not in place
    return os.path.abspath(place) if is_path else mask(place)  # noqa: PTH100, must not resolve symbolic links


def versions() -> dict[str, str]:
    """Return the versions of the libraries and of this program, with its git revision if known."""
    return {
        "sgloc": sgloc.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "git": _revision(),
    }


def processor(device: torch.device) -> str:
    """Return the name of the GPU, or of the CPU as far as the system reports it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def _revision() -> str:
    """Return the revision of the program's own git repository, or else the revision that pip installed.

    The package must be tracked by the repository: another project's repository may merely contain a virtual environment
    with the program installed, and its revision says nothing about the program.
    """
    if _git("rev-parse", "--show-toplevel") == str(_PACKAGE.parent) and _git("ls-files", "sgloc/__init__.py"):
        return _git("rev-parse", "HEAD") or _UNKNOWN
    return _installed_revision()


def _git(*words: str) -> str:
    """Return the output of a git command run in the folder of the package; empty if it fails."""
    # Inside another repository's hook or script, GIT_* variables point git at that repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(_PACKAGE.parent), *words]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _installed_revision() -> str:
    try:
        distribution = importlib.metadata.distribution("sgloc")
    except importlib.metadata.PackageNotFoundError:
        return _UNKNOWN
    # The installed copy need not be the one that is running.
    if Path(str(distribution.locate_file("sgloc"))).resolve() != _PACKAGE:
        return _UNKNOWN
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return str(origin.get("vcs_info", {}).get("commit_id") or f"release {distribution.version}")
