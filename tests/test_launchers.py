"""Which of several processes this one is, as launchers say it: the variables are those of their manuals."""

import pytest

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.launchers import Shard, be_alone, launched_as, parse_shard, trainers_size

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SRUN = {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
BATCH_SCRIPT = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
ARRAY = {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10"}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        (TORCHRUN, Shard(5, 8, 1)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, Shard(1, 2, 1)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, Shard(1, 2)),
        (SRUN, Shard(3, 4, 1)),
        (ARRAY, Shard(2, 3)),
        (ARRAY | SRUN, Shard(3, 4, 1)),
        (BATCH_SCRIPT, None),  # one process, that may start others by srun
        ({"WORLD_SIZE": "1", "RANK": "0"}, None),
        ({"WORLD_SIZE": "2"}, None),
        ({"WORLD_SIZE": "many", "RANK": "0"}, None),
        ({}, None),
    ],
)
def test_launchers(environment: dict[str, str], shard: Shard | None) -> None:
    assert launched_as(environment) == shard


def test_the_numbers_of_an_array_are_different() -> None:
    found = [launched_as(ARRAY | {"SLURM_ARRAY_TASK_ID": str(number)}) for number in (10, 11, 12)]
    assert found == [Shard(0, 3), Shard(1, 3), Shard(2, 3)]


def test_nothing_is_left_that_a_training_library_would_wait_by() -> None:
    environment = TORCHRUN | {"HOME": "/home/ann"}
    assert trainers_size(environment) == ("WORLD_SIZE", 8)
    be_alone(environment)
    assert environment == {"HOME": "/home/ann"}
    assert trainers_size(environment) is None


def test_a_shard_as_it_is_typed() -> None:
    assert parse_shard("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"


@pytest.mark.parametrize("text", ["8/8", "2", "2/", "/8", "-1/8", "0/0", "2/8/9", "two/8", "²/8", ""])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_shard(text)
    assert refused.value.hint
