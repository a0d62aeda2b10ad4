"""What the doctor looks at."""

from dataclasses import dataclass
from typing import Literal

from sgloc.config import require


@dataclass(frozen=True)
class DoctorOptions:
    """What to look at."""

    data: str | None = None
    """Folder or URL of shards to read."""
    run: str | None = None
    """Folder or URL that the run is to write to; left as it was."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    timeout: float = 60.0
    """Seconds that one check of one rank may take."""

    def __post_init__(self) -> None:
        require(1 <= self.timeout < float("inf"), "timeout", "at least 1 second", self.timeout)
