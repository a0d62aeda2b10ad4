"""Options of the doctor."""

from dataclasses import dataclass
from typing import Literal

from sgloc.config import Options, option


@dataclass(frozen=True)
class DoctorOptions(Options):
    """What to check."""

    data: str | None = None
    """Folder or URL of shards to check."""
    run: str | None = None
    """Folder or URL that the run will write to; the check leaves it unchanged."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto uses CUDA if available."""
    timeout: float = option(60.0, at_least=1, at_most=10**6)
    """Time limit of one check on one rank, in seconds."""
