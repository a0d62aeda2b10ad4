"""What the doctor looks at."""

from dataclasses import dataclass
from typing import Literal

from sgloc.config import Options, option


@dataclass(frozen=True)
class DoctorOptions(Options):
    """What to look at."""

    data: str | None = None
    """Folder or URL of shards to read."""
    run: str | None = None
    """Folder or URL that the run is to write to; left as it was."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    timeout: float = option(60.0, at_least=1, at_most=10**6)
    """Seconds that one check of one rank may take."""
