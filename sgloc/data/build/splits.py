"""Which split a drawing belongs to, and how many of a category are taken."""

import hashlib

from sgloc.data.manifest import SPLITS

# METHOD 8: of 75,000 drawings of a category 2,500 validate and 2,500 test.
_SPLIT_PARTS = 30


def split_by_key(key_id: int) -> str:
    """The split of a drawing whose source has none: a hash of its key_id gives 1/30 to valid and 1/30 to test, so that
    a drawing never changes splits."""
    digest = hashlib.blake2b(key_id.to_bytes(8, "little"), digest_size=8).digest()
    part = int.from_bytes(digest, "little") * _SPLIT_PARTS >> 64
    return {0: "valid", 1: "test"}.get(part, "train")


def split_quotas(per_category: int) -> dict[str, int]:
    """How many drawings of a category each split may take: of 75,000, METHOD 8's 70,000, 2,500 and 2,500.

    Args:
        per_category: of all splits together; 0 is without limit.
    """
    if per_category == 0:
        return dict.fromkeys(SPLITS, 2**63)
    held_out = per_category // _SPLIT_PARTS
    return {"train": per_category - 2 * held_out, "valid": held_out, "test": held_out}
