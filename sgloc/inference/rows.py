"""What a gallery can show of a sketch that was redrawn."""

# In synthesis no stroke is moved, and the two in the middle equal the original.
ROWS = ("original", "disturbed", "put_back", "redrawn")
ROWS_OF_REORGANIZATION = ROWS[1:3]
