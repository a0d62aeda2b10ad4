"""Who a process is, by what its launcher left in the environment."""

from collections.abc import Iterator

import pytest
import torch

from sgloc import dist
from sgloc.dist import Placement, resolve_placement, select_device
from sgloc.errors import ConfigError, DataError
from tests.checkpoints import single_process

MEETING = {"MASTER_ADDR": "node7", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", **MEETING}
# What Slurm sets for every process of a job; srun adds the step.
BATCH = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}
SRUN = {**BATCH, "SLURM_STEP_ID": "0", **MEETING}
PLAIN = Placement("plain", 0, 0, 1, "localhost", 0)


def test_a_plain_start_is_one_process() -> None:
    assert resolve_placement({}) == PLAIN
    assert resolve_placement({"PATH": "/bin", **MEETING}) == PLAIN


def test_torchrun() -> None:
    assert resolve_placement(TORCHRUN) == Placement("torchrun", 5, 1, 8, "node7", 29500)
    one = {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    assert resolve_placement(one) == Placement("torchrun", 0, 0, 1, "node7", 29500)


def test_srun() -> None:
    assert resolve_placement(SRUN) == Placement("srun", 5, 1, 8, "node7", 29500)


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
    needed = set(environment) - {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_NTASKS"}
    assert len(needed) >= 4
    for name in needed:
        rest = {key: value for key, value in environment.items() if key != name}
        with pytest.raises(ConfigError, match=f"^{name} is not set although this looks like a process of {launcher}"):
            resolve_placement(rest)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE"])
def test_one_variable_left_over_in_the_shell_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not set although .*or unset the others"):
        resolve_placement({name: "0"})


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"])
@pytest.mark.parametrize("value", ["two", "-1", "1.5", "", " "])
def test_what_is_not_a_number_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be a number, not '{value}'"):
        resolve_placement({**TORCHRUN, name: value})


@pytest.mark.parametrize("rank", ["8", "9"])
def test_a_rank_beyond_the_world_is_told(rank: str) -> None:
    with pytest.raises(ConfigError, match=f"^RANK is {rank}, but WORLD_SIZE says there are 8 processes"):
        resolve_placement({**TORCHRUN, "RANK": rank})
    with pytest.raises(ConfigError, match=f"^SLURM_PROCID is {rank}, but SLURM_NTASKS says there are 8 processes"):
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


@pytest.fixture
def _group() -> Iterator[None]:
    with single_process():
        yield


@pytest.mark.usefixtures("_group")
def test_collectives_of_one_process() -> None:
    cpu = torch.device("cpu")
    assert dist.on_rank_0(lambda: {"a": [1]}) == {"a": [1]}
    assert dist.gather_to_rank_0("mine") == ["mine"]
    assert dist.sum_over_ranks([1.5, 2.0**53], cpu) == [1.5, 2.0**53]
    assert dist.max_over_ranks(-2.5, cpu) == -2.5

    def refuse() -> None:
        raise DataError("no such thing")

    with pytest.raises(DataError, match="no such thing") as caught:
        dist.on_rank_0(refuse)
    assert not caught.value.told


def test_the_process_group_is_gone_afterwards_so_that_another_can_follow() -> None:
    for _ in range(2):
        with single_process():
            assert torch.distributed.is_initialized()
        assert not torch.distributed.is_initialized()
