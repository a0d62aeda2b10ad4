"""From files of drawings to batches: readers, shards, order, stream."""
