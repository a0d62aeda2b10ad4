"""Run pytest on the virtual device, which must exist before pytest imports torch; takes pytest's arguments."""

from tests.virtual_cuda.device import virtual_cuda

# isort: split

import sys

import pytest

if __name__ == "__main__":
    with virtual_cuda():
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
