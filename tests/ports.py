"""Free ports for processes that a test starts."""

import contextlib
import random
import socket

# Below the ephemeral range: another program's connection could take such a port between the moment it is found free and
# the moment it is served. The Slurm scripts use ports from 20,000.
_PORTS = range(10_000, 20_000)


def free_ports(number: int) -> list[int]:
    """Return distinct ports of this machine on which nothing listens."""
    chance = random.SystemRandom()
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < number:
            with contextlib.suppress(OSError):
                server = held.enter_context(socket.create_server(("127.0.0.1", chance.choice(_PORTS))))
                ports.append(server.getsockname()[1])
        return ports


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    return free_ports(1)[0]
