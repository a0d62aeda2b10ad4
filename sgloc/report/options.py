"""Options of `sgloc report`."""

from dataclasses import dataclass

from sgloc.config import Options, option


@dataclass(frozen=True)
class ReportOptions(Options):
    """The run to report on, and what to show."""

    run: str
    """Folder or URL of a run."""
    out: str = ""
    """File or URL to write to; default: report.html in the run folder."""
    data: str = ""
    """Folder or URL of shards; default: those that the model was trained on."""
    evaluated: str = ""
    """Folder or URL that `sgloc evaluate` wrote to; default: `evaluated` in the run folder, if it exists."""
    kind: str = ""
    """Kind of a model that neither this program nor an installed package provides, as package:Recipe; its code is
    imported."""
    count: int = option(2000, at_least=2, at_most=20_000)
    """Maximum number of test drawings on the map of codes."""
    examples: int = option(10, at_least=1, at_most=100)
    """Number of test drawings to redraw and to retrieve."""
    between: int = option(8, at_least=1, at_most=100)
    """Number of drawings interpolated between two test drawings."""
    seed: int = 0
    """Seed of the stroke displacements."""
