"""Processes started by srun find each other without an explicit rendezvous address."""

import json
import os
import sys
from pathlib import Path

import pytest

import sgloc
from tests.slurm.cluster import Cluster

PROGRAM = """
import dataclasses, json, os, sys, torch
from sgloc import dist
placement, cpu = dist.resolve_placement(os.environ), torch.device("cpu")
with dist.process_group(placement, cpu, 60.0) as group:
    (total,) = group.sum([placement.rank + 1.0])
    records = group.gather(dataclasses.asdict(placement) | {"node": os.environ["SLURMD_NODENAME"]})
    # Only rank 0 prints, because both ranks write to the same log.
    for record in records if group.rank == 0 else []:
        print(json.dumps(record | {"total": total, "masters": [name for name in os.environ if "MASTER_" in name]}))
"""


@pytest.mark.slow
def test_a_step_on_two_nodes_meets_by_itself(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("HOME", "LANG")},
        "PYTHONPATH": str(Path(sgloc.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    words = ("--nodes=2", "--ntasks-per-node=1", "--output=log", "--wrap", f"srun {sys.executable} program.py")
    job = cluster.submit(*words, cwd=tmp_path, environment=environment)
    states, log = cluster.wait(job), (tmp_path / "log").read_text()
    assert set(states.values()) == {"COMPLETED"}, log
    first, second = map(json.loads, log.splitlines())
    shared = {"launcher": "srun", "local_rank": 0, "world_size": 2, "num_nodes": 2, "total": 3.0, "masters": []}
    # This is step 0 of the job, and all nodes of the cluster are on this machine.
    shared |= {"address": "127.0.0.1", "port": 20000 + int(job) % 10000}
    assert first == {**shared, "rank": 0, "node": "n1"}
    assert second == {**shared, "rank": 1, "node": "n2"}
