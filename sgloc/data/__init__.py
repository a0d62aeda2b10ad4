"""The data pipeline: file readers, shards, sampling order, streaming and batching."""
