"""What computes a run."""

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

import sgloc

_UNKNOWN = "unknown"
_PACKAGE = Path(sgloc.__file__).resolve().parent


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
