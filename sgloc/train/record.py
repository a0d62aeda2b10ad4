"""What a run writes down of itself: its options, without secrets and with places that mean the same from every folder,
and what computes it."""

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
    """Write config.yaml, the resolved configuration, and versions.json into a run's folder.

    Raises:
        DataError: if the folder cannot be written.
    """
    options = yaml.safe_dump(recorded_options(config), sort_keys=False)
    program = f"{to_json(versions(), indent=1)}\n"
    Storage(config.train.run).save({"config.yaml": options.encode(), "versions.json": program.encode()})


def recorded_options(config: RunConfig) -> dict[str, Any]:
    """A configuration as a nest of dictionaries that may be kept, shown and sent to services."""
    options: dict[str, Any] = dataclasses.asdict(config)
    for name, option, place in walk(config):
        if option.metadata.get("place"):
            *sections, last = name.split(".")
            functools.reduce(operator.getitem, sections, options)[last] = recorded_place(place)
    return mask_all(options)  # type: ignore[no-any-return]


def recorded_place(place: str) -> str:
    """A path, made absolute, or a URL, without its secrets."""
    is_path = bool(place) and "://" not in place and "::" not in place
    return os.path.abspath(place) if is_path else mask(place)  # noqa: PTH100, links stay as they are


def versions() -> dict[str, str]:
    """Versions of what computes, and the git revision of the program where it is known."""
    return {
        "sgloc": sgloc.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "git": _revision(),
    }


def processor(device: torch.device) -> str:
    """The name of a GPU or, on the CPU, of the processor, if the system knows it."""
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
    """The revision of the program's own repository, or the one that pip installed it from.

    A repository that merely has an environment with the program in one of its folders says nothing of the program.
    """
    if _git("rev-parse", "--show-toplevel") == str(_PACKAGE.parent) and _git("ls-files", "sgloc/__init__.py"):
        return _git("rev-parse", "HEAD") or _UNKNOWN
    return _installed_revision()


def _git(*words: str) -> str:
    """What git says in the folder of the package; empty where it fails."""
    # Hooks and scripts of another repository name that one in variables.
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
    # Another copy of the program may be installed than the one that runs.
    if Path(str(distribution.locate_file("sgloc"))).resolve() != _PACKAGE:
        return _UNKNOWN
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return str(origin.get("vcs_info", {}).get("commit_id") or f"release {distribution.version}")
