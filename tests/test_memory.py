"""`keep_freed_memory`: freed memory is reused without new page faults."""

import subprocess
import sys

import pytest

# Prints the page faults of allocating and touching 64 MiB eight times.
PROGRAM = """
import resource, sys, torch
from sgloc.memory import keep_freed_memory
if "keep" in sys.argv and not keep_freed_memory():
    sys.exit(3)
# Alignment: the heap grows a few times before a block fits where another was.
for _ in range(16):
    torch.ones(16 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*words: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this C library has no mallopt; run the tests on Linux with glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_freed_memory_is_kept() -> None:
    assert page_faults("keep") < 0.1 * page_faults()
