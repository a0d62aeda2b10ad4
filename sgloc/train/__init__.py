"""Training: the loop, what it advances, and how it is never lost."""
