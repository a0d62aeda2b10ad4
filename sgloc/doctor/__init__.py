"""`sgloc doctor`: what would spoil a run is found before it starts."""
