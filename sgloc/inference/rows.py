"""The rows of a gallery of redrawn sketches."""

# In synthesis no stroke is moved, so the two middle rows equal the original.
ROWS = ("original", "disturbed", "put_back", "redrawn")
ROWS_OF_REORGANIZATION = ROWS[1:3]
