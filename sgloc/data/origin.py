"""Where the origin of a data set's drawings lies (METHOD 1)."""

from sgloc.config import OriginName
from sgloc.data.formats.form import form_of
from sgloc.data.manifest import Manifest
from sgloc.errors import DataError


def starts_at_first_point(manifest: Manifest, origin: OriginName, path: str) -> bool:
    """Whether the origin of each drawing is its first point, in place of what its first offset is counted from.

    Args:
        manifest: of the shards, which names the files that they were made of: an npz brings its own origin.
        origin: `data.origin`.
        path: of the shards, to name them by.

    Raises:
        DataError: if only some of the drawings bring their own origin; the shards do not tell which.
    """
    if origin == "top_left":
        return False
    forms = {form_of(source.name) for source in manifest.sources if source.num_accepted}
    brings = {form is not None and form.brings_origin for form in forms}
    if len(brings) > 1:
        raise DataError(
            f"{path} mixes drawings of npz files, which bring their own origin, with others, which have none, and does "
            "not tell which is which; build their shards apart, or train with data.origin top_left"
        )
    return brings == {False}
