"""Run checks of `python -m benchmarks gpu` at small sizes on the virtual device.

The arguments are the output folder and the names of the checks.
"""

from tests.virtual_cuda.device import virtual_cuda

# isort: split

import json
import sys
from pathlib import Path

import torch

from benchmarks.gpu_checks import Setting
from benchmarks.gpu_checks.__main__ import run

if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    torch.set_num_threads(1)
    with virtual_cuda():
        setting = Setting(Path(folder), torch.device("cuda", 0), is_tiny=True)
        print(json.dumps({name: run(name, setting) for name in names}, default=str))
