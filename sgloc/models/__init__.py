"""One folder a model: its options, network, recipe, and the pictures that it shows while it trains."""
