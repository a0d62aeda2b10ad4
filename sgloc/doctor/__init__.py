"""`sgloc doctor`: find the problems that would break a run before it starts."""
