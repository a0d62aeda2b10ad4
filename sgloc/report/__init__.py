"""`sgloc report`: what a run learned, as one HTML page that needs nothing else."""
