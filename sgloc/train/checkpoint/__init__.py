"""Checkpoints: sharded by rank, and either committed or absent (DESIGN contract 4).

format.py defines the manifest, safetensors_io.py reads and writes tensor files, manager.py decides what to save and
when, writer.py commits it, and load.py finds, verifies and reads checkpoints.
"""
