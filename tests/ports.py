"""Ports at which processes that a test starts are to meet."""

import contextlib
import random
import socket

# Below those that systems hand out by themselves: a connection of somebody else takes such a port between the moment it
# is found free and the moment it is served. The scripts for Slurm take theirs from 20,000.
_PORTS = range(10_000, 20_000)


def free_ports(number: int) -> list[int]:
    """Different ports of this machine that nobody serves."""
    chance = random.SystemRandom()
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < number:
            with contextlib.suppress(OSError):
                server = held.enter_context(socket.create_server(("127.0.0.1", chance.choice(_PORTS))))
                ports.append(server.getsockname()[1])
        return ports


def free_port() -> int:
    """A port of this machine that nobody serves."""
    return free_ports(1)[0]
