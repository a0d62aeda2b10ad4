"""Verification, statistics and merging of finished shards (`sgloc shards`)."""
