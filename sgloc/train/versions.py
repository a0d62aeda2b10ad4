"""What computes a run."""

import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

import sgloc


def versions() -> dict[str, str]:
    """Versions of what computes, and the git revision of the program where it is known."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        revision = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = "unknown"
    return {
        "sgloc": sgloc.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "git": revision,
    }
