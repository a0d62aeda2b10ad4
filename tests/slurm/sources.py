"""A small imitation of the public data set; each category is one part of a build."""

from pathlib import Path

from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from tests.builds import folder_bytes
from tests.drawings import make_drawings, write_ndjson

CATEGORIES = ("ant", "apple", "axe", "bat", "bee")


class Mirror:
    """Drawings of five categories, laid out as in Google's bucket.

    Args:
        folder: Empty folder to write to.
        num_drawings: Number of drawings in each category.

    Attributes:
        words: Options of `sgloc shard` that select these drawings.
        expected: Contents of every file of a build in one process.
    """

    def __init__(self, folder: Path, num_drawings: int) -> None:
        simplified = folder / "full/simplified"
        simplified.mkdir(parents=True)
        for number, category in enumerate(CATEGORIES):
            drawings = make_drawings(num_drawings, [category], seed=number, first_key_id=1 + number * 10**9)
            write_ndjson(simplified / f"{category}.ndjson", drawings)
        self.words = ("--source=quickdraw:simplified", f"--mirror={folder}", f"--categories={','.join(CATEGORIES)}")
        out = folder / "expected"
        build_shards("quickdraw:simplified", str(out), BuildOptions(categories=CATEGORIES), mirror=str(folder))
        self.expected = folder_bytes(out)
