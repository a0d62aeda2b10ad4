"""Run one check and write its results: `python -m benchmarks.gpu_checks NAME OUT [--cpu]`."""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from benchmarks.gpu_checks import CheckError, Facts, NotRunError, Setting, equality, programs, speed
from sgloc.errors import SglocError

CHECKS: Mapping[str, Callable[[Setting], Facts]] = MappingProxyType(
    {
        "machine": speed.machine,
        "collectives": programs.collectives,
        "kernels": equality.kernels,
        "gradients": equality.gradients,
        "float32": equality.float32,
        "lstm": equality.lstm,
        "retrieval": equality.retrieval,
        "step": speed.step,
        "waits": speed.waits,
        "resume": programs.resume,
        "ranks": programs.ranks,
        "commands": programs.commands,
        "compile": speed.compiled,
        "deepspeed": programs.deepspeed,
        "sanitizer": programs.sanitizer,
    }
)


def run(name: str, setting: Setting) -> dict[str, Any]:
    """Run a check; return its status, a message, and its results."""
    try:
        return {"status": "passed", "said": "", "facts": CHECKS[name](setting)}
    except NotRunError as reason:
        return {"status": "not run", "said": str(reason), "facts": {}}
    except (CheckError, SglocError) as fault:
        return {"status": "failed", "said": str(fault), "facts": {}}
    except Exception as error:
        traceback.print_exc()
        return {"status": "failed", "said": f"{type(error).__name__}: {' '.join(str(error).split())}", "facts": {}}


def main() -> None:
    """Run the check named on the command line, followed by the study's folder and, for a dry run, --cpu."""
    name, folder, *options = sys.argv[1:]
    is_tiny = "--cpu" in options
    setting = Setting(Path(folder), torch.device("cpu" if is_tiny else "cuda:0"), is_tiny)
    found = run(name, setting)
    Path(folder, "checks", f"{name}.json").write_text(json.dumps(found, indent=1, default=str))


if __name__ == "__main__":
    main()
