"""What a report shows."""

from dataclasses import dataclass

from sgloc.errors import ConfigError


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows, of which run."""

    run: str
    """Folder or URL of a run."""
    out: str = ""
    """File or URL to write to; default: report.html in the run's folder."""
    data: str = ""
    """Shards; default: those that it was trained on."""
    evaluated: str = ""
    """Folder that `sgloc evaluate` wrote; default: `evaluated` in the run's folder, if it is there."""
    count: int = 2000
    """Most test drawings on the map of codes."""
    examples: int = 10
    """Drawings that are redrawn and found again."""
    between: int = 8
    """Drawings between two."""
    seed: int = 0
    """Seed of the disturbance."""

    def __post_init__(self) -> None:
        for name, least, most in (("count", 2, 20_000), ("examples", 1, 100), ("between", 1, 100)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be from {least} to {most:,}, not {getattr(self, name)}")
