"""The coordinate origin of a data set's drawings (METHOD 1)."""

from sgloc.config import OriginName
from sgloc.data.formats.form import form_of
from sgloc.data.manifest import Manifest
from sgloc.errors import DataError


def starts_at_first_point(manifest: Manifest, origin: OriginName, path: str) -> bool:
    """Return whether each drawing's origin is its first point rather than the reference point of its first offset.

    Args:
        manifest: manifest of the shards; it lists the source files. An npz file has its own origin.
        origin: value of `data.origin`.
        path: path of the shards, for error messages.

    Raises:
        DataError: if only some of the drawings have their own origin; shards do not record which ones.
    """
    if origin == "top_left":
        return False
    forms = {form_of(source.name) for source in manifest.sources if source.num_accepted}
    brings = {form is not None and form.brings_origin for form in forms}
    if len(brings) > 1:
        raise DataError(
            f"{path} mixes drawings from npz files, which have their own origin, with drawings that have none, and "
            "does not record which is which; build separate shards for them, or train with data.origin top_left"
        )
    return brings == {False}
