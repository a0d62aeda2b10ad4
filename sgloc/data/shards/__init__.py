"""What is done with finished shards: verifying, describing and joining them (`sgloc shards`)."""
