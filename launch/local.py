"""Trains on this machine, or makes it one of several, through torchrun's launcher.

`python -m launch.local --processes 2 --config configs/quickstart.yaml` starts two ranks, and starts them again when one
is lost. TERM, INT, HUP, USR1 or USR2 has them save and end; the same command goes on from there. On several machines,
the same command on each:

    python -m launch.local --nodes 2 --node-rank 0 --rendezvous node0:29500 --config ...   (and --node-rank 1)
    python -m launch.local --nodes 1:2 --rendezvous node0:29500 --config ...

The second is elastic: a machine that is lost is done without, and one that comes later is taken in, as long as node0,
where they meet, is there.

The exit code is 0 when training is finished or was stopped, 1 when it failed for a reason that may pass, 2 for a
mistake, 3 for a fault of the program, and 130 after a second Ctrl-C. After 2 and 3 nothing is started again.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from launch.options import check, split
from sgloc.faults import FAULT, INTERRUPTED, MISTAKE, PASSING, VERDICT_VARIABLE, read_verdict
from sgloc.program import run_program, tell
from sgloc.signals import STOP_SIGNALS

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

_NAME = "launch.local"
_REPEAT_SECONDS = 1.0
# How long machines that come to an elastic run wait for more.
_LAST_CALL_SECONDS = 10
# A rank that does not listen yet is not to be killed by what asks it to stop.
_RANK = ("/bin/sh", "-c", "trap '' USR1 USR2; exec \"$@\"", "rank")


def rank_command(words: Sequence[str]) -> list[str]:
    """The command of a rank, which ignores USR1 and USR2 until it listens to them.

    Args:
        words: options of `sgloc train`.
    """
    return [*_RANK, sys.executable, "-m", "sgloc", "train", *words]


def _children() -> Iterator[int]:
    """The processes that this one started: the ranks."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            yield from (int(child) for child in (task / "children").read_text().split())


class _Stop:
    """Asks the ranks to save and end when this process is asked to.

    torchrun forwards signals, too, but kills after 30 seconds, whatever is being saved, and fails in the end. And Slurm
    with control groups signals this process alone.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested.set()

    def _forward(self, ended: threading.Event) -> None:
        self.requested.wait()
        # Again and again: a rank may not have listened yet.
        while not ended.wait(_REPEAT_SECONDS):
            for rank in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank, signal.SIGUSR1)

    @contextlib.contextmanager
    def forwarding(self) -> Iterator[None]:
        """While inside, signals to stop go to the ranks."""
        ended = threading.Event()
        for number in STOP_SIGNALS:
            # What nohup ignores stays ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._ask)
        threading.Thread(target=self._forward, args=(ended,), daemon=True).start()
        try:
            yield
        finally:
            ended.set()


def _parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m launch.local",
        usage="%(prog)s [options] --config FILE [options of `sgloc train`]",
        description="Train on this machine, or make it one of several.",
        epilog="All other options are those of `sgloc train`; see `sgloc train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--processes", default="auto", help="on this machine; auto: one a GPU, or 1")
    parser.add_argument("--nodes", default="1", help="machines; MIN:MAX: elastic")
    parser.add_argument("--node-rank", type=int, default=None, help="number of this machine, unless elastic")
    parser.add_argument("--rendezvous", default="", metavar="HOST:PORT", help="where the machines meet, on machine 0")
    parser.add_argument("--max-restarts", type=int, default=3, help="how often ranks are started again after a failure")
    options, others = split(parser, words)
    try:
        options.min_nodes, options.max_nodes = _node_range(options.nodes)
    except ValueError:
        parser.error(f"--nodes must be a number or MIN:MAX, not {options.nodes}")
    if options.processes != "auto" and not (options.processes.isdecimal() and int(options.processes) >= 1):
        parser.error(f"--processes must be auto or at least 1, not {options.processes}")
    if options.max_restarts < 0:
        parser.error(f"--max-restarts must be at least 0, not {options.max_restarts}")
    if options.max_nodes == 1 and not options.rendezvous and options.node_rank is None:
        return options, others
    host, _, port = options.rendezvous.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        parser.error("several machines need a place to meet, the same for all; give --rendezvous HOST:PORT")
    if options.min_nodes != options.max_nodes:
        if options.node_rank is not None:
            parser.error("an elastic run numbers its machines itself; leave --node-rank out")
    elif options.node_rank not in range(options.max_nodes):
        parser.error(f"--node-rank must be from 0 to {options.max_nodes - 1}, not {options.node_rank}")
    return options, others


def _node_range(text: str) -> tuple[int, int]:
    fewest, colon, most = text.partition(":")
    smallest, largest = int(fewest), int(most if colon else fewest)
    if not 1 <= smallest <= largest:
        raise ValueError(text)
    return smallest, largest


def _launch(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Run the ranks to their end; gives the exit code."""
    # What is above answers a mistake at once.
    import torch
    from torch.distributed.launcher.api import LaunchConfig

    num_processes = max(1, torch.cuda.device_count()) if options.processes == "auto" else int(options.processes)
    # Ranks share the machine's cores; without this each would take them all.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // num_processes)))
    # Else ranks that are started again find what the ones before left in the store (gloo, torch 2.13).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    here = options.rendezvous.startswith(("localhost:", "127."))
    # Then ranks are started again from here: torchrun does not tell a mistake from a failure.
    is_alone = options.max_nodes == 1
    config = LaunchConfig(
        min_nodes=options.min_nodes,
        max_nodes=options.max_nodes,
        nproc_per_node=num_processes,
        run_id="sgloc",
        rdzv_backend="c10d" if options.node_rank is None else "static",
        rdzv_endpoint=options.rendezvous or "localhost:0",
        rdzv_configs={"last_call_timeout": _LAST_CALL_SECONDS}
        if options.node_rank is None
        else {"rank": options.node_rank},
        # The name of a machine need not be known to itself.
        local_addr="localhost" if here or not options.rendezvous else None,
        max_restarts=0 if is_alone else options.max_restarts,
        # The others are forwarded here.
        signals_to_handle="SIGQUIT",
    )
    stop = _Stop()
    with stop.forwarding():
        code = _run_ranks(config, words)
        for _ in range(options.max_restarts if is_alone else 0):
            if code != PASSING or stop.requested.is_set():
                break
            code = _run_ranks(config, words)
    return code


def _run_ranks(config: "LaunchConfig", words: Sequence[str]) -> int:
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch

    program, *arguments = rank_command(words)
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
    """Check the options and train; gives the exit code."""
    options, words = _parse(arguments)
    check(words, data=True)
    with tempfile.TemporaryDirectory(prefix="sgloc-launch-") as folder:
        # torchrun starts ranks again after any failure; those that read there that it would come again end at once.
        os.environ.setdefault(VERDICT_VARIABLE, f"{folder}/verdict")
        return _launch(options, words)


if __name__ == "__main__":
    run_program(_NAME, main)
