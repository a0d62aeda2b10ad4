"""Configurations and assertions shared by the stream tests."""

import dataclasses
import threading

import numpy as np

from sgloc.data.batch import PackedBatch
from sgloc.data.block import IntArray
from sgloc.data.build.plan import BuildOptions
from sgloc.data.order import Order, Places
from sgloc.data.reader import ReadOptions
from sgloc.storage import Retries
from tests.patience import PATIENCE

THREAD_NAMES = ("sgloc-read-ahead", "sgloc-fetch")
IMPATIENT = ReadOptions(retries=Retries(num_attempts=2, first_delay=0.001))
SMALL = BuildOptions(sketches_per_shard=512, sketches_per_block=128)


def expect_equal(found: PackedBatch, expected: PackedBatch) -> None:
    for field in dataclasses.fields(expected):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), err_msg=field.name)


def expect_no_reading_thread() -> None:
    # A stopped thread first finishes the batch it is reading.
    for thread in threading.enumerate():
        if thread.name.startswith(THREAD_NAMES):
            thread.join(timeout=PATIENCE)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAMES)]


def sketches_at(order: Order, places: Places) -> IntArray:
    """Return the sketch numbers, int64 [n], counted across all shards in manifest order."""
    numbers = np.empty_like(places.visit)
    keys, which = np.unique(places.epoch * order.num_blocks + places.block, return_inverse=True)
    for number, key in enumerate(keys.tolist()):
        here = which == number
        epoch, block = divmod(key, order.num_blocks)
        numbers[here] = order.block_starts[block] + order.visits(epoch, block)[places.visit[here]]
    return numbers
