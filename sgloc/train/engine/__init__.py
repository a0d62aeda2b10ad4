"""Engines: how a batch becomes an optimizer step. The loop knows only `Engine`."""

from sgloc.train.engine.base import Engine
from sgloc.train.engine.open import open_engine, prepare_engine

__all__ = ["Engine", "open_engine", "prepare_engine"]
