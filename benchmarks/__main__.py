"""`python -m benchmarks NAME`: studies that need more than a test may take, of machines or of days."""

import importlib
import sys
from typing import NoReturn

from sgloc.program import run_program

# Their modules, each with a `main` that is given its words, and what they answer.
_STUDIES = {
    "gpu": "does everything about CUDA work here, and how fast: eight minutes on one GPU",
    "parity": "do losses depend on ranks, accumulation and engine? real runs",
    "resume": "do losses depend on a resume? real runs",
    "scaling": "what do steps and epochs cost at many numbers of ranks? computed",
    "scale": "are as many drawings as QuickDraw has built, and each streamed once, in memory that does not grow?",
    "webdataset": "how fast do sketches come from shards, beside a plain webdataset of one sketch a member?",
    "order": "what do ranks read in an epoch, and how well is it shuffled? simulated",
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
