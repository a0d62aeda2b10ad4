"""Checkpoints: in files by rank, committed or absent (DESIGN contract 4).

format.py says what a checkpoint is, safetensors_io.py moves its tensors in and out of files; manager.py decides what is
saved when, writer.py commits it; load.py finds, verifies and reads.
"""
