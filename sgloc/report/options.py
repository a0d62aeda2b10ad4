"""What a report shows."""

from dataclasses import dataclass

from sgloc.config import Options, option


@dataclass(frozen=True)
class ReportOptions(Options):
    """What a report shows, of which run."""

    run: str
    """Folder or URL of a run."""
    out: str = ""
    """File or URL to write to; default: report.html in the run's folder."""
    data: str = ""
    """Shards; default: those that it was trained on."""
    evaluated: str = ""
    """Folder that `sgloc evaluate` wrote; default: `evaluated` in the run's folder, if it is there."""
    kind: str = ""
    """Name of the model, where neither this program nor an installed package has it: package:Recipe, whose code is
    imported."""
    count: int = option(2000, at_least=2, at_most=20_000)
    """Most test drawings on the map of codes."""
    examples: int = option(10, at_least=1, at_most=100)
    """Drawings that are redrawn and found again."""
    between: int = option(8, at_least=1, at_most=100)
    """Drawings between two."""
    seed: int = 0
    """Seed of the disturbance."""
