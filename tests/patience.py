"""How long tests wait for what must come."""

# More than it takes on a machine that does much else: only what hangs takes as long.
PATIENCE = 900.0
