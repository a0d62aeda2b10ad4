"""Rank, world size and launcher of a process, derived from its environment."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sgloc import dist
from sgloc.dist import Group, Placement, resolve_placement, select_device
from sgloc.errors import ConfigError, DataError, LostRankError
from tests.checkpoints import single_process

MEETING = {"MASTER_ADDR": "node7", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", **MEETING}
# Slurm sets these for every process of a job; srun adds the step's variables.
BATCH = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}
STEP = {**BATCH, "SLURM_STEP_ID": "2", "SLURM_STEP_NODELIST": "n[7-8]", "SLURM_STEP_NUM_NODES": "2"}
SRUN = {**STEP, **MEETING}
PLAIN = Placement("plain", 0, 0, 1, "localhost", 0)


def test_a_plain_start_is_one_process() -> None:
    assert resolve_placement({}) == PLAIN
    assert resolve_placement({"PATH": "/bin", **MEETING}) == PLAIN


def test_torchrun() -> None:
    assert resolve_placement(TORCHRUN) == Placement("torchrun", 5, 1, 8, "node7", 29500)
    one = {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    assert resolve_placement(one) == Placement("torchrun", 0, 0, 1, "node7", 29500)
    assert resolve_placement({**TORCHRUN, "GROUP_WORLD_SIZE": "4"}).num_nodes == 4


def test_srun() -> None:
    assert resolve_placement(SRUN) == Placement("srun", 5, 1, 8, "node7", 29500, 2)
    without_nodes = {name: value for name, value in SRUN.items() if name != "SLURM_STEP_NUM_NODES"}
    assert resolve_placement({**without_nodes, "SLURM_NNODES": "3"}).num_nodes == 3
    assert resolve_placement(without_nodes).num_nodes == 1


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment whose scontrol answers as Slurm's does and logs each query to the file `asked`."""
    script = tmp_path / "scontrol"
    script.write_text(
        f"""#!/bin/sh
echo "$*" >> {tmp_path}/asked
case "$*" in
"show hostnames n[7-8]") printf 'n7\\nn8\\n' ;;
"show node n7") printf 'NodeName=n7 Arch=x86_64\\n   NodeAddr=10.0.0.7 NodeHostName=n7 Port=0\\n' ;;
"show hostnames n9") echo n9 ;;
"show node n9") echo "NodeName=n9" ;;
"show hostnames n0") ;;
*) echo "slurm_load_node error: Invalid node name specified" >&2; exit 1 ;;
esac
"""
    )
    script.chmod(0o755)
    return {**STEP, "PATH": f"{tmp_path}:/bin:/usr/bin"}


def test_srun_needs_no_meeting_point(slurm: dict[str, str]) -> None:
    found = resolve_placement(slurm)
    assert (found.address, found.port) == ("10.0.0.7", 20000 + 77 + 2 * 997)
    ports = {
        resolve_placement({**slurm, "SLURM_JOB_ID": job, "SLURM_STEP_ID": step}).port
        for job in ("77", "78", "12345678")
        for step in ("0", "1", "2")
    }
    assert len(ports) == 9
    assert all(20000 <= port < 30000 for port in ports)


def test_slurm_is_not_asked_where_the_meeting_point_is_set(slurm: dict[str, str], tmp_path: Path) -> None:
    assert resolve_placement({**slurm, **MEETING}).address == "node7"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ("gone", r"`scontrol show hostnames gone`.*failed \(slurm_load_node error.*set MASTER_ADDR and MASTER_PORT$"),
        ("n0", "`scontrol show hostnames n0` printed nothing; set MASTER_ADDR and MASTER_PORT"),
        ("n9", "scontrol did not report the address of node n9; set MASTER_ADDR and MASTER_PORT"),
    ],
)
def test_where_slurm_does_not_tell_the_variables_are_asked_for(slurm: dict[str, str], nodes: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        resolve_placement({**slurm, "SLURM_STEP_NODELIST": nodes})
    with pytest.raises(ConfigError, match=r"No such file.*scontrol.*; set MASTER_ADDR and MASTER_PORT"):
        resolve_placement({**slurm, "PATH": "/nowhere"})


@pytest.mark.parametrize("name", ["SLURM_STEP_NODELIST", "SLURM_JOB_ID"])
def test_srun_without_a_meeting_point_needs_the_step(slurm: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is not set although this looks like a process of srun"):
        resolve_placement({key: value for key, value in slurm.items() if key != name})


def test_an_interactive_step_of_one_process_is_alone() -> None:
    # The shell of an allocation with 8 tasks is itself a step.
    shell = {**STEP, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    assert resolve_placement(shell) == PLAIN


def test_torchrun_inside_a_slurm_step_is_torchrun() -> None:
    environment = {**SRUN, "SLURM_PROCID": "0", "SLURM_NTASKS": "2", **TORCHRUN}
    assert resolve_placement(environment) == Placement("torchrun", 5, 1, 8, "node7", 29500)


def test_a_batch_script_without_srun_is_one_process() -> None:
    assert resolve_placement({**BATCH, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}) == PLAIN


def test_a_step_of_one_process_needs_no_meeting_point() -> None:
    alone = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1"}
    assert resolve_placement(alone) == PLAIN


@pytest.mark.parametrize(
    ("environment", "launcher"), [(TORCHRUN, "torchrun"), (SRUN, "srun")], ids=["torchrun", "srun"]
)
def test_a_half_set_environment_names_the_missing_variable(environment: dict[str, str], launcher: str) -> None:
    needed = {name for name in environment if not name.startswith(("SLURM_JOB", "SLURM_STEP"))}
    assert len(needed) == 5
    for name in needed:
        rest = {key: value for key, value in environment.items() if key != name}
        with pytest.raises(ConfigError, match=f"^{name} is not set although this looks like a process of {launcher}"):
            resolve_placement({**rest, name: ""})
        with pytest.raises(ConfigError, match=f"^{name} is not set although this looks like a process of {launcher}"):
            resolve_placement(rest)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE"])
def test_one_variable_left_over_in_the_shell_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not set although .*or unset the launcher's other variables"):
        resolve_placement({name: "0"})


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"])
@pytest.mark.parametrize("value", ["two", "-1", "1.5", " "], ids=["word", "negative", "fraction", "space"])
def test_what_is_not_a_number_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be a number, not '{value}'"):
        resolve_placement({**TORCHRUN, name: value})


@pytest.mark.parametrize("rank", ["8", "9"])
def test_a_rank_beyond_the_world_is_told(rank: str) -> None:
    with pytest.raises(ConfigError, match=f"^RANK is {rank}, but WORLD_SIZE is 8; start with"):
        resolve_placement({**TORCHRUN, "RANK": rank})
    with pytest.raises(ConfigError, match=f"^SLURM_PROCID is {rank}, but SLURM_NTASKS is 8; start with"):
        resolve_placement({**SRUN, "SLURM_PROCID": rank})


def test_devices() -> None:
    assert select_device("cpu", PLAIN) == torch.device("cpu")
    if torch.cuda.is_available():
        assert select_device("auto", PLAIN) == torch.device("cuda", 0)
        with pytest.raises(ConfigError, match="process 4096 of this machine has no CUDA device"):
            select_device("cuda", Placement("torchrun", 4096, 4096, 4097, "localhost", 1))
    else:
        assert select_device("auto", PLAIN) == torch.device("cpu")
        with pytest.raises(ConfigError, match="torch sees no CUDA device"):
            select_device("cuda", PLAIN)


def test_a_gpu_bound_to_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    bound = Placement("srun", 3, 3, 4, "node7", 29500)
    assert select_device("auto", bound) == torch.device("cuda", 0)
    with pytest.raises(ConfigError, match="process 3 of this machine has no CUDA device of its own; there are 1"):
        select_device("auto", Placement("torchrun", 3, 3, 4, "node7", 29500))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert select_device("auto", bound) == torch.device("cuda", 3)


def test_the_backend_is_that_of_the_device() -> None:
    assert dist.backend(torch.device("cpu")) == "gloo"
    assert dist.backend(torch.device("cuda", 1)) == "nccl"


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        placement = Placement("srun", 0, 0, 2, "127.0.0.1", port)
        with (
            pytest.raises(
                ConfigError, match=f"^port {port} of 127.0.0.1, the rendezvous of all processes, cannot be served"
            ),
            dist.process_group(placement, torch.device("cpu")),
        ):
            pass


@pytest.fixture
def group() -> Iterator[Group]:
    """The process group of a single rank."""
    with single_process() as one:
        yield one


def test_collectives_of_one_process(group: Group) -> None:
    assert group.on_rank_0(lambda: {"a": [1]}) == {"a": [1]}
    assert group.on_each_rank(lambda: {"a": [1]}) == {"a": [1]}
    assert group.gather("mine") == ["mine"]
    assert group.sum([1.5, 2.0**53]) == [1.5, 2.0**53]
    assert group.max(-2.5) == -2.5

    def refuse() -> None:
        raise DataError("no such thing")

    with pytest.raises(DataError, match="no such thing") as caught:
        group.on_rank_0(refuse)
    assert not caught.value.told


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        pytest.param(KeyError("gone"), "3", id="a fault"),
        pytest.param(DataError("no such shard"), "2", id="a mistake"),
        pytest.param(LostRankError("another process is gone"), None, id="a lost rank"),
    ],
)
def test_a_rank_leaves_its_verdict_before_others_see_it_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, verdict: str | None
) -> None:
    path = tmp_path / "verdict"
    monkeypatch.setenv("SGLOC_VERDICT", str(path))
    found: list[str | None] = []
    destroy = torch.distributed.destroy_process_group

    def look_and_destroy() -> None:
        found.append(path.read_text() if path.exists() else None)
        destroy()

    monkeypatch.setattr(torch.distributed, "destroy_process_group", look_and_destroy)
    with pytest.raises(type(error)), single_process():
        raise error
    assert found == [verdict]


def test_the_process_group_is_gone_afterwards_so_that_another_can_follow() -> None:
    for _ in range(2):
        with single_process():
            assert torch.distributed.is_initialized()
        assert not torch.distributed.is_initialized()
