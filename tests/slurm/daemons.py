"""A real Slurm cluster of two virtual nodes on this machine, running as long as standard input stays open.

`python -m tests.slurm.daemons FOLDER` starts munge and Slurm in an empty folder, prints "ready", and stops everything
when its standard input closes, which happens even if the tests are killed. It reads requests from standard input:
"lose n2" kills everything on that node, as a power failure would, and "return n2" restarts the node. It prints "done"
after each request.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

from tests.patience import PATIENCE
from tests.ports import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo", "setpriv")
NUM_NODES = 2
GPUS_PER_NODE = 8

# Jobs in the partition preempt requeue those in main, which receive a signal some time before (GraceTime). Requeued
# jobs start after cred_expire seconds.
_SLURM_CONF = """
ClusterName=test
FirstJobId={first_job}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=30
SlurmdTimeout=15
GresTypes=gpu
{nodes}
PartitionName=main Nodes=n[1-{num_nodes}] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=preempt Nodes=n[1-{num_nodes}] MaxTime=INFINITE State=UP PriorityTier=10
"""
_NODE = "NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=8000 Gres=gpu:{gpus}"


def missing_programs() -> list[str]:
    """Return the required programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def _write_configuration(folder: Path) -> None:
    # Users other than root must be able to reach munge's socket.
    folder.chmod(0o755)
    for name in ("state", "spool", "gpu"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    for number in range(GPUS_PER_NODE):
        # Slurm accepts only device nodes as GPUs; these have the device number of /dev/null.
        os.mknod(folder / f"gpu/{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    host = socket.gethostname().partition(".")[0]
    controller_port, *ports = free_ports(1 + NUM_NODES)
    nodes = [
        _NODE.format(number=number, host=host, port=port, gpus=GPUS_PER_NODE)
        for number, port in enumerate(ports, start=1)
    ]
    configuration = _SLURM_CONF.format(
        # The rendezvous port is derived from the job number; a random start avoids clashes with another cluster on this
        # machine.
        first_job=1 + secrets.randbelow(1_000_000),
        folder=folder,
        host=host,
        controller_port=controller_port,
        nodes="\n".join(nodes),
        num_nodes=NUM_NODES,
    )
    (folder / "slurm.conf").write_text(configuration)
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu/[0-{GPUS_PER_NODE - 1}]\n")
    # cgroup/v1 starts even if no control groups are mounted.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")


def _start(folder: Path, name: str, *words: str) -> "subprocess.Popen[bytes]":
    """Start a daemon in the foreground; it is killed when this process ends."""
    with (folder / f"{name}.out").open("wb") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def _wait_for(condition: str, folder: Path, *command: str, expected: str = "") -> None:
    """Wait until a command succeeds and, if `expected` is not empty, prints that output."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and expected in ("", done.stdout.strip()):
            return
        time.sleep(0.1)
    logs = "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("*.out")))
    raise RuntimeError(f"{condition} did not appear within {PATIENCE} s\n{logs}")


def _start_node(folder: Path, node: str) -> "subprocess.Popen[bytes]":
    return _start(folder, f"slurmd.{node}", "slurmd", "-D", "-N", node)


def _start_all(folder: Path) -> dict[str, "subprocess.Popen[bytes]"]:
    _write_configuration(folder)
    files = ("key-file=munge.key", "socket=munge.socket", "pid-file=munge.pid", "seed-file=munge.seed")
    options = [f"--{option.replace('=', f'={folder}/')}" for option in (*files, "log-file=munge.log")]
    daemons = {"munged": _start(folder, "munged", "munged", "--foreground", *options)}
    _wait_for("munge", folder, "munge", "--no-input", f"--socket={folder}/munge.socket")
    daemons["slurmctld"] = _start(folder, "slurmctld", "slurmctld", "-D")
    daemons |= {node: _start_node(folder, node) for node in (f"n{number}" for number in range(1, NUM_NODES + 1))}
    idle = ("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D")
    _wait_for("a cluster with idle nodes", folder, *idle, expected=str(NUM_NODES))
    return daemons


def _kill_processes_of(folder: Path, node: str) -> None:
    """Kill everything on a node of this cluster; each task is killed after the daemon that would report its death."""
    marks = {f"SLURM_CONF={folder}/slurm.conf".encode(), f"SLURMD_NODENAME={node}".encode()}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marks <= set((process / "environ").read_bytes().split(b"\0")):
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if Path(f"/proc/{parent}/comm").read_text() == "slurmstepd\n":
                    os.kill(int(parent), signal.SIGKILL)
                os.kill(int(process.name), signal.SIGKILL)


def _serve(folder: Path, daemons: dict[str, "subprocess.Popen[bytes]"]) -> None:
    for line in sys.stdin:
        action, node = line.split()
        if action == "lose":
            daemons[node].kill()
            daemons[node].wait()
            _kill_processes_of(folder, node)
        else:
            daemons[node] = _start_node(folder, node)
        print("done", flush=True)


def _stop_all(folder: Path, daemons: dict[str, "subprocess.Popen[bytes]"]) -> None:
    # Cancel the jobs first: a process that waits for a job would outlive its slurmd.
    subprocess.run(["scancel", "--user", "root"], capture_output=True, check=False)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if not subprocess.run(["squeue", "-h"], capture_output=True, check=False).stdout.strip():
            break
        time.sleep(0.1)
    for daemon in reversed(daemons.values()):
        daemon.terminate()
    for daemon in daemons.values():
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    shutil.rmtree(folder, ignore_errors=True)


def main(folder: Path) -> None:
    """Run the cluster until standard input ends."""
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    # Ctrl-C reaches every process of the terminal; the tests stop the cluster themselves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    daemons: dict[str, subprocess.Popen[bytes]] = {}
    try:
        daemons = _start_all(folder)
        print("ready", flush=True)
        _serve(folder, daemons)
    finally:
        _stop_all(folder, daemons)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
