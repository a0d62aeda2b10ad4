"""Starts a command of `sgloc` on this machine, or makes it one of several, through torchrun's launcher.

`python -m launch.local --processes 2 train --config configs/quickstart.yaml` starts two ranks, and starts them again
when one is lost; `evaluate` and `train-classifier` likewise. TERM, INT, HUP, USR1 or USR2 has ranks that train save and
end; the same command goes on from there. On several machines, the same command on each:

    python -m launch.local --nodes 2 --node_rank 0 --rendezvous node0:29500 train ...   (and --node_rank 1)
    python -m launch.local --nodes 1:2 --rendezvous node0:29500 train ...

The second is elastic: a machine that is lost is done without, and one that comes later is taken in, as long as node0,
where they meet, is there.

The exit code is 0 when all is done or was stopped, 1 when it failed for a reason that may pass, 2 for a mistake, 3 for
a fault of the program, and 130 after a second Ctrl-C. After 2 and 3 nothing is started again, on any machine.
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
# How long machines that come to an elastic run wait for more.
_LAST_CALL_SECONDS = 10
# How long the machine where the others meet stays there for them to read why it ends.
_PARTING_SECONDS = 3.0


@dataclass(frozen=True)
class LocalOptions(Options):
    """The processes, and the machines that they are on."""

    processes: str = "auto"
    """On this machine; auto: one a GPU, or 1."""
    nodes: str = "1"
    """Machines; MIN:MAX: elastic."""
    node_rank: int | None = None
    """Number of this machine, unless elastic."""
    rendezvous: str = ""
    """HOST:PORT where the machines meet, on machine 0."""
    max_restarts: int = option(3, at_least=0)
    """How often ranks are started again after a failure."""

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
            raise ConfigError("several machines need a place to meet, the same for all; give --rendezvous HOST:PORT")
        if self.least_nodes != self.most_nodes:
            if self.node_rank is not None:
                raise ConfigError("an elastic run numbers its machines itself; leave --node_rank out")
        elif self.node_rank not in range(self.most_nodes):
            raise ConfigError(f"node_rank must be from 0 to {self.most_nodes - 1}, not {self.node_rank}")

    @property
    def least_nodes(self) -> int:
        """Machines without which nothing begins."""
        return int(self.nodes.split(":")[0])

    @property
    def most_nodes(self) -> int:
        """Machines that are taken in."""
        return int(self.nodes.split(":", 1)[-1])

    @property
    def is_alone(self) -> bool:
        """Whether there is no other machine to meet."""
        return self.most_nodes == 1 and not self.rendezvous and self.node_rank is None


def _signal_ranks(number: int) -> None:
    """Send a signal to all that this process has started."""
    for task in Path("/proc/self/task").iterdir():
        # Threads and ranks come and go.
        with contextlib.suppress(OSError):
            for rank in (task / "children").read_text().split():
                os.kill(int(rank), number)


class _Stop:
    """Asks the ranks to save and end when this process is asked to.

    torchrun forwards signals, too, but kills after 30 seconds, whatever is being saved, and fails in the end. And Slurm
    with control groups signals this process alone.

    Attributes:
        requested: whether this process was asked to stop.
        for_ranks: the signal that asks ranks: they are there later.
    """

    def __init__(self) -> None:
        self.requested, self.for_ranks = False, signal.SIGTERM
        # What nohup ignores stays ignored.
        wanted = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        for number in (*wanted, signal.SIGALRM):
            signal.signal(number, self._ask)
        # Python takes its handlers away before it ends.
        atexit.register(signal.signal, signal.SIGALRM, signal.SIG_IGN)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        _signal_ranks(self.for_ranks)
        # Again and again: a rank may not have listened yet.
        signal.setitimer(signal.ITIMER_REAL, _REPEAT_SECONDS)


class _Partners:
    """Tells the other machines that nothing is to be started again, and hears it of them.

    torchrun does not: it would have the ranks that it starts here wait half an hour for those of a machine that has
    ended for good. An elastic run goes on without that machine.
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
            # torchrun's store is at the same place, and is the same one.
            store = TCPStore(host, int(port), None, self._is_host, day, wait_for_workers=False, multi_tenant=True)
            self._store = store
            while not (heard := store.check([self._KEY])) and not self._has_parted.wait(_REPEAT_SECONDS):
                pass
            if heard and not self._has_parted.is_set():
                code = int(store.get(self._KEY))
                tell(_NAME, f"another machine ended with exit code {code}, and says why; nothing is started again")
                _signal_ranks(signal.SIGKILL)
                # The main thread may be waiting in C++ for a machine that does not come.
                os._exit(code)

    def part(self, code: int) -> None:
        """Leave an exit code for the others."""
        self._has_parted.set()
        if self._store is not None and code in (MISTAKE, FAULT):
            with contextlib.suppress(RuntimeError):
                self._store.set(self._KEY, str(code))
                time.sleep(_PARTING_SECONDS if self._is_host else 0)
        # A thread that is inside torch when Python exits aborts the process. The store may not answer.
        if self._listener.is_alive():
            self._listener.join(_PARTING_SECONDS)


def _launch(options: LocalOptions, launched: Launched, stop: _Stop) -> int:
    """Run the ranks to their end; gives the exit code."""
    # What is above answers a mistake at once.
    import torch

    from sgloc.torch_versions import launch_config

    num_processes = max(1, torch.cuda.device_count()) if options.processes == "auto" else int(options.processes)
    # Ranks share the machine's cores; without this each would take them all.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // num_processes)))
    # Else ranks that are started again find what the ones before left in the store (gloo, torch 2.13).
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
        # The name of a machine need not be known to itself.
        local_addr="localhost" if here or not options.rendezvous else None,
        # Alone, ranks are started again from here: torchrun does not tell a mistake from a failure.
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
        # Whoever waited for the rank that failed has failed too, for another reason, and maybe before it.
        for final in (FAULT, MISTAKE):
            if final in (*codes, read_verdict()):
                return final
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        how = f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        tell(_NAME, f"rank {rank} {how}; what was wrong stands above")
        return PASSING
    except (RendezvousError, DistError) as error:
        tell(_NAME, f"the machines do not meet at {config.rdzv_endpoint}: {' '.join(str(error).split())}")
        return PASSING
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def main(arguments: Sequence[str]) -> int:
    """Check the options and start the command; gives the exit code."""
    reader = Reader(f"python -m {_NAME}", LocalOptions, description=__doc__.split("\n\n")[0], starts_command=True)
    stop = _Stop()
    chosen, words = reader.read_until_word(arguments)
    options = LocalOptions(**chosen)
    launched = read_command(words, check_data=True)
    # Only training has something to save.
    stop.for_ranks = signal.SIGUSR1 if launched.run else signal.SIGTERM
    with tempfile.TemporaryDirectory(prefix="sgloc-launch-") as folder:
        # torchrun starts ranks again after any failure; those that read there that it would come again end at once.
        os.environ.setdefault(VERDICT_VARIABLE, f"{folder}/verdict")
        return _launch(options, launched, stop)


if __name__ == "__main__":
    run_program(_NAME, main)
