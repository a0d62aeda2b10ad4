"""Assignment of drawings to splits, and quotas per category."""

import hashlib

from sgloc.data.manifest import SPLITS

# METHOD 8: of a category's 75,000 drawings, 2,500 are for validation and 2,500 for test.
_SPLIT_PARTS = 30


def split_by_key(key_id: int) -> str:
    """Return the split of a drawing from a source without splits.

    A hash of the key_id assigns 1/30 of the drawings to valid and 1/30 to test, so that a drawing never changes splits.
    """
    digest = hashlib.blake2b(key_id.to_bytes(8, "little"), digest_size=8).digest()
    part = int.from_bytes(digest, "little") * _SPLIT_PARTS >> 64
    return {0: "valid", 1: "test"}.get(part, "train")


def split_quotas(per_category: int) -> dict[str, int]:
    """Return each split's maximum number of drawings per category; 75,000 gives METHOD 8's 70,000, 2,500 and 2,500.

    Args:
        per_category: total over all splits; 0 means no limit.
    """
    if per_category == 0:
        return dict.fromkeys(SPLITS, 2**63)
    held_out = per_category // _SPLIT_PARTS
    return {"train": per_category - 2 * held_out, "valid": held_out, "test": held_out}
