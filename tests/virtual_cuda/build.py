"""Where the library of the virtual device comes from."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

_SOURCE = Path(__file__).with_name("guard.cpp")


def library() -> Path:
    """The compiled library, for this build of torch; made at the first call on this machine.

    Processes that ask for it at the same time wait for the first of them.
    """
    if torch.version.cuda is not None:
        pytest.skip("this torch is built for CUDA; the virtual device stands in for CUDA in builds without it")
    compiler = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler; install one, as by `apt-get install g++`")
    home = Path(torch.__file__).parent
    kind = hashlib.sha256(b"\0".join([_SOURCE.read_bytes(), torch.__version__.encode(), bytes(home)])).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"sgloc-virtual-cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{kind}.so"
    with (folder / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = folder / f"{kind}.unfinished"
            options = ["-O0", "-w", "-std=c++20", "-fPIC", "-shared", f"-I{home}/include"]
            libraries = [f"-L{home}/lib", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{home}/lib"]
            subprocess.run([compiler, *options, str(_SOURCE), "-o", str(unfinished), *libraries], check=True)
            unfinished.rename(path)
    return path
