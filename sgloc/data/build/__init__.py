"""Building shards: drawings in, WebDataset tar files and a manifest out (DESIGN contracts 7 and 8).

Source files are grouped into parts by arithmetic on their names and sizes. A part is built by one process into shards
of its own, and is what a killed build need not build again; so the bytes depend neither on the number of processes nor
on how often they were killed.
"""
