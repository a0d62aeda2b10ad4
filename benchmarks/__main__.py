"""`python -m benchmarks NAME`: studies that need more hardware or more time than a test may use."""

import importlib
import sys
from typing import NoReturn

from sgloc.program import run_program

# Studies: name -> question. The module of that name has a `main` that takes the remaining arguments.
_STUDIES = {
    "gpu": "does everything that uses CUDA work on this machine, and how fast? (eight minutes on one GPU)",
    "parity": "do the losses depend on the number of ranks, accumulation or engine? (real runs)",
    "resume": "do the losses depend on a resume? (real runs)",
    "scaling": "what do a step and an epoch cost at different numbers of ranks? (computed)",
    "scale": "can a data set of QuickDraw's size be built, and streamed exactly once, in constant memory?",
    "webdataset": "how fast are sketches read from shards, compared with a plain webdataset?",
    "order": "what do the ranks read in an epoch, and how well is it shuffled? (simulated)",
}


def _usage() -> str:
    lines = [f"  {name:<11} {question}" for name, question in _STUDIES.items()]
    return "\n".join(["usage: python -m benchmarks <study> [options]", "", *lines])


def _run(words: list[str]) -> int:
    if words and words[0] in _STUDIES:
        study = importlib.import_module(f"benchmarks.{words[0]}")
        return int(study.main(words[1:]))
    print(_usage(), file=sys.stdout if words in (["-h"], ["--help"]) else sys.stderr)
    return 0 if words in (["-h"], ["--help"]) else 2


def main() -> NoReturn:
    """Run a study."""
    run_program("benchmarks", _run)


if __name__ == "__main__":
    main()
