"""Start an `sgloc` command on this machine, alone or as one of several machines, through torchrun's launcher.

`python -m launch.local --processes 2 train --config configs/quickstart.yaml` starts two ranks, and restarts them if one
is lost; `evaluate` and `train-classifier` work the same way. On TERM, INT, HUP, USR1 or USR2, training ranks save and
exit; the same command resumes the run. On several machines, start the same command on each:

    python -m launch.local --nodes 2 --node_rank 0 --rendezvous node0:29500 train ...   (and --node_rank 1)
    python -m launch.local --nodes 1:2 --rendezvous node0:29500 train ...

The second is elastic: the run continues without a lost machine, and a machine may join later, as long as node0, the
rendezvous host, is running.

The exit code is 0 if the command finished or was stopped, 1 for a transient error, 2 for a user error, 3 for a bug
(internal error), and 130 after a second Ctrl-C. After 2 and 3 nothing is restarted, on any machine.
"""

import atexit
import contextlib
import datetime
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from launch.command import Launched, read_command
from sgloc.cli.options import Reader
from sgloc.config import Options, option
from sgloc.errors import ConfigError
from sgloc.faults import FAULT, INTERRUPTED, MISTAKE, PASSING, VERDICT_VARIABLE, read_verdict
from sgloc.program import run_program, tell
from sgloc.signals import STOP_SIGNALS

if TYPE_CHECKING:
    from torch.distributed import TCPStore
    from torch.distributed.launcher.api import LaunchConfig

_NAME = "launch.local"
_REPEAT_SECONDS = 1.0
# How long the machines of an elastic run wait for more to join.
_LAST_CALL_SECONDS = 10
# How long the rendezvous host stays up for the others to read its exit code.
_PARTING_SECONDS = 3.0


@dataclass(frozen=True)
class LocalOptions(Options):
    """Processes and machines."""

    processes: str = "auto"
    """Number of processes on this machine; auto starts one per GPU, or 1 without GPUs."""
    nodes: str = "1"
    """Number of machines; MIN:MAX for an elastic run."""
    node_rank: int | None = None
    """Index of this machine, counted from 0; leave out for an elastic run."""
    rendezvous: str = ""
    """HOST:PORT of the rendezvous of several machines, on machine 0."""
    max_restarts: int = option(3, at_least=0)
    """Maximum number of restarts after a failure."""

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = self.nodes.split(":")
        if not all(number.isdecimal() for number in numbers) or not 1 <= self.least_nodes <= self.most_nodes:
            raise ConfigError(f"nodes must be a number or MIN:MAX, not {self.nodes}")
        if self.processes != "auto" and not (self.processes.isdecimal() and int(self.processes) >= 1):
            raise ConfigError(f"processes must be auto or at least 1, not {self.processes}")
        if self.is_alone:
            return
        host, _, port = self.rendezvous.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise ConfigError("several machines need a rendezvous, the same on all; set --rendezvous HOST:PORT")
        if self.least_nodes != self.most_nodes:
            if self.node_rank is not None:
                raise ConfigError("an elastic run numbers its machines itself; leave --node_rank out")
        elif self.node_rank not in range(self.most_nodes):
            raise ConfigError(f"node_rank must be from 0 to {self.most_nodes - 1}, not {self.node_rank}")

    @property
    def least_nodes(self) -> int:
        """Minimum number of machines to start with."""
        return int(self.nodes.split(":")[0])

    @property
    def most_nodes(self) -> int:
        """Maximum number of machines."""
        return int(self.nodes.split(":", 1)[-1])

    @property
    def is_alone(self) -> bool:
        """Whether this is the only machine, so that no rendezvous is needed."""
        return self.most_nodes == 1 and not self.rendezvous and self.node_rank is None


def _signal_ranks(number: int) -> None:
    """Send a signal to all child processes."""
    for task in Path("/proc/self/task").iterdir():
        # Threads and ranks may end meanwhile.
        with contextlib.suppress(OSError):
            for rank in (task / "children").read_text().split():
                os.kill(int(rank), number)


class _Stop:
    """Forwards stop signals to the ranks, so that they save and exit.

    torchrun forwards signals too, but kills the ranks after 30 seconds, even while they are saving, and then reports a
    failure. And Slurm with control groups signals only this process.

    Attributes:
        requested: whether this process has received a stop signal.
        for_ranks: the signal to send to the ranks; set before they are started.
    """

    def __init__(self) -> None:
        self.requested, self.for_ranks = False, signal.SIGTERM
        # Signals that nohup ignores stay ignored.
        wanted = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        for number in (*wanted, signal.SIGALRM):
            signal.signal(number, self._ask)
        # Python removes its handlers before it exits; a pending SIGALRM would then kill the process.
        atexit.register(signal.signal, signal.SIGALRM, signal.SIG_IGN)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        _signal_ranks(self.for_ranks)
        # Repeat the signal, because a rank may not have installed its handlers yet.
        signal.setitimer(signal.ITIMER_REAL, _REPEAT_SECONDS)


class _Partners:
    """Shares final exit codes between machines, so that none of them restarts its ranks after a user error or bug.

    torchrun does not do this: the ranks it restarts here would wait half an hour for those of a machine that has ended
    for good. An elastic run does not need it, because it continues without that machine.
    """

    _KEY = "sgloc/verdict"

    def __init__(self, options: LocalOptions) -> None:
        self._is_host, self._place = options.node_rank == 0, options.rendezvous
        self._store: TCPStore | None = None
        self._has_parted = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        if options.node_rank is not None:
            self._listener.start()

    def _listen(self) -> None:
        from torch.distributed import TCPStore

        host, _, port = self._place.rpartition(":")
        day = datetime.timedelta(days=1)
        with contextlib.suppress(RuntimeError):
            # torchrun's store has the same host and port, and shares this server.
            store = TCPStore(host, int(port), None, self._is_host, day, wait_for_workers=False, multi_tenant=True)
            self._store = store
            while not (heard := store.check([self._KEY])) and not self._has_parted.wait(_REPEAT_SECONDS):
                pass
            if heard and not self._has_parted.is_set():
                code = int(store.get(self._KEY))
                tell(_NAME, f"another machine ended with exit code {code}, see its output; not restarting")
                _signal_ranks(signal.SIGKILL)
                # The main thread may be waiting in C++ for a machine that never joins.
                os._exit(code)

    def part(self, code: int) -> None:
        """Publish this machine's exit code to the others."""
        self._has_parted.set()
        if self._store is not None and code in (MISTAKE, FAULT):
            with contextlib.suppress(RuntimeError):
                self._store.set(self._KEY, str(code))
                time.sleep(_PARTING_SECONDS if self._is_host else 0)
        # A thread that is inside torch when Python exits aborts the process. The store may not answer.
        if self._listener.is_alive():
            self._listener.join(_PARTING_SECONDS)


def _launch(options: LocalOptions, launched: Launched, stop: _Stop) -> int:
    """Run the ranks to completion; return the exit code."""
    # Imported late, so that user errors are reported at once.
    import torch

    from sgloc.torch_versions import launch_config

    num_processes = max(1, torch.cuda.device_count()) if options.processes == "auto" else int(options.processes)
    # Ranks share the machine's cores; otherwise each would use all of them.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // num_processes)))
    # Otherwise restarted ranks find stale entries of their predecessors in the store (gloo, torch 2.13).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    here = options.rendezvous.startswith(("localhost:", "127."))
    is_elastic = options.node_rank is None
    # Signals are forwarded here.
    config = launch_config(
        min_nodes=options.least_nodes,
        max_nodes=options.most_nodes,
        nproc_per_node=num_processes,
        run_id="sgloc",
        rdzv_backend="c10d" if is_elastic else "static",
        rdzv_endpoint=options.rendezvous or "localhost:0",
        rdzv_configs={"last_call_timeout": _LAST_CALL_SECONDS} if is_elastic else {"rank": options.node_rank},
        # A machine may be unable to resolve its own name.
        local_addr="localhost" if here or not options.rendezvous else None,
        # On one machine, restart the ranks here: torchrun cannot tell a user error from a failure.
        max_restarts=0 if options.most_nodes == 1 else options.max_restarts,
    )
    partners = _Partners(options)
    code = _run_ranks(config, launched)
    for _ in range(options.max_restarts if options.most_nodes == 1 else 0):
        if code != PASSING or stop.requested:
            break
        code = _run_ranks(config, launched)
    partners.part(code)
    return code


def _run_ranks(config: "LaunchConfig", launched: Launched) -> int:
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch

    program, *arguments = launched.process()
    try:
        elastic_launch(config, program)(*arguments)
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        # Ranks that waited for the failed rank fail too, for another reason, and possibly before it.
        for final in (FAULT, MISTAKE):
            if final in (*codes, read_verdict()):
                return final
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        how = f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        tell(_NAME, f"rank {rank} {how}; see the error above")
        return PASSING
    except (RendezvousError, DistError) as error:
        tell(_NAME, f"the rendezvous at {config.rdzv_endpoint} failed: {' '.join(str(error).split())}")
        return PASSING
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def main(arguments: Sequence[str]) -> int:
    """Check the options and start the command; return the exit code."""
    reader = Reader(f"python -m {_NAME}", LocalOptions, description=__doc__.split("\n\n")[0], starts_command=True)
    stop = _Stop()
    chosen, words = reader.read_until_word(arguments)
    options = LocalOptions(**chosen)
    launched = read_command(words, check_data=True)
    # Only training saves before it stops.
    stop.for_ranks = signal.SIGUSR1 if launched.run else signal.SIGTERM
    with tempfile.TemporaryDirectory(prefix="sgloc-launch-") as folder:
        # torchrun restarts ranks after any failure; a restarted rank that finds a final exit code here exits at once.
        os.environ.setdefault(VERDICT_VARIABLE, f"{folder}/verdict")
        return _launch(options, launched, stop)


if __name__ == "__main__":
    run_program(_NAME, main)
