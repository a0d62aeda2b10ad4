"""Run `sgloc` commands on the virtual device, one after the other in one process.

The argument is a JSON list of commands, each a list of words. A warning ends the command, as everywhere in the tests.
"""

from tests.virtual_cuda.device import Replica, virtual_cuda

# isort: split

import json
import sys
import warnings

import torch

from sgloc.cli import main
from sgloc.train.engine import ddp


def run(commands: list[list[str]]) -> None:
    """Run the commands; the first one that fails ends the process."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    vars(ddp)["replicate"] = Replica
    with virtual_cuda():
        for words in commands:
            main(words)


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
