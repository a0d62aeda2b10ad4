"""Conversion of drawings to shards: WebDataset tar files and a manifest (DESIGN contracts 7 and 8).

Source files are grouped deterministically, by their names and sizes, into parts. Each part is built by one process into
shards of its own, and a resumed build skips completed parts, so that the output bytes depend neither on the number of
processes nor on interruptions.
"""
