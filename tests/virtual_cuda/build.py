"""Building the native library of the virtual device."""

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
    """Return the path of the library compiled for this PyTorch build; compile it on the first call on this machine.

    Concurrent calls wait for the first one to finish.
    """
    if torch.version.cuda is not None:
        pytest.skip("this PyTorch is built with CUDA; the virtual device replaces CUDA only in builds without it")
    compiler = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
    if compiler is None:
        pytest.skip("no C++ compiler found; install one, for example with `apt-get install g++`")
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
