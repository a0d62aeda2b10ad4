"""Engines: backward pass and optimizer step, behind the interface `Engine`."""

from sgloc.train.engine.base import Engine
from sgloc.train.engine.open import open_engine, prepare_engine

__all__ = ["Engine", "open_engine", "prepare_engine"]
