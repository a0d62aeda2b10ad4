"""Control of a real Slurm cluster from tests; the cluster itself is run by `tests.slurm.daemons`."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

from tests.patience import PATIENCE

# Slurm's commands may be in folders that PATH does not contain.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
_ENDED = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "OUT_OF_MEMORY"}
)


class Cluster:
    """A cluster of two virtual nodes, n1 and n2, with 8 CPUs and 8 GPUs each, in the partitions main and preempt.

    Use it as a context manager: the cluster runs inside the context.

    Attributes:
        environment: Environment variables for every process that must use this cluster rather than one in which the
            tests themselves may run.
    """

    def __init__(self) -> None:
        # Socket paths are limited to 108 bytes, so the folder must have a short path.
        self._folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        outside.pop("VIRTUAL_ENV", None)
        self.environment = {**outside, "PATH": _PATH, "SLURM_CONF": str(self._folder / "slurm.conf")}

    def __enter__(self) -> Self:
        # The daemons stop when their standard input closes, which happens even if this process is killed.
        self._daemons = subprocess.Popen(
            [sys.executable, "-m", "tests.slurm.daemons", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        assert self._daemons.stdout is not None
        if self._daemons.stdout.readline() != b"ready\n":
            _, errors = self._daemons.communicate(timeout=PATIENCE)
            raise RuntimeError(errors.decode())
        return self

    def __exit__(self, *_: object) -> None:
        self._daemons.communicate(timeout=PATIENCE)
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def without_node(self, node: str) -> Iterator[None]:
        """Kill everything on a node, n1 or n2, as a power failure would; restart the node on exit."""
        self._ask(f"lose {node}")
        try:
            yield
        finally:
            self._ask(f"return {node}")

    def _ask(self, request: str) -> None:
        assert self._daemons.stdin is not None
        assert self._daemons.stdout is not None
        self._daemons.stdin.write(f"{request}\n".encode())
        self._daemons.stdin.flush()
        assert self._daemons.stdout.readline() == b"done\n", request

    def run(self, *command: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
        """Run a command, which must succeed, and return its output."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, *words: str, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
        """Submit a batch script and return the job's number."""
        return self.run("sbatch", "--parsable", *words, cwd=cwd, environment=environment)

    def states(self, job: str) -> dict[str, str]:
        """Return the state of each task of an array job, or of the single task of another job, by its id."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def wait(self, job: str) -> dict[str, str]:
        """Wait until all tasks of a job have ended and return their states."""

        def have_ended() -> bool:
            states = self.states(job)
            return bool(states) and set(states.values()) <= _ENDED

        self.wait_until(have_ended, f"job {job}")
        return self.states(job)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds; `what` names it in the error message."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"timed out waiting for {what}: {self.run('squeue', '-t', 'all')}"
            time.sleep(0.05)
