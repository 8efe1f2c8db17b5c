"""What several processes do of an update comes to what one process does, also of the last one of an epoch."""

from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import test_dpo
from command_line import on, refused

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.settings import TrainSettings
from activedpo_cli.train import dpo_trainer as dpo
from activedpo_cli.train.division import divided
from activedpo_cli.train.shared_updates import PortionSampler


def weights_alone(order: list[int], batch: int, accumulation: int) -> list[dict[int, float]]:
    """By how much each row's loss counts in each update: its batch's mean, and the mean over these."""
    batches = [order[start : start + batch] for start in range(0, len(order), batch)]
    updates = [batches[start : start + accumulation] for start in range(0, len(batches), accumulation)]
    return [{row: 1 / len(part) / len(update) for part in update for row in part} for update in updates]


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (1, 8), (6, 2), (4, 3), (3, 4)])
def test_every_row_counts_as_it_does_alone(batch: int, accumulation: int) -> None:
    """In the trainer each portion's mean loss, times its share, is divided by the turns and by the processes."""
    for rows, processes in product(range(1, 30), (2, 3, 4, 6)):
        if batch * accumulation % processes:
            continue
        order = list(range(100, 100 + rows))
        division = divided(batch, accumulation, processes)
        every = [list(division.portions(order, index)) for index in range(processes)]
        assert {len(portions) for portions in every} == {division.steps(rows)}, "a process would wait for the others"
        expected = weights_alone(order, batch, accumulation)
        turns = [division.accumulation] * (len(expected) - 1)
        turns.append(division.steps(rows) - sum(turns))
        assert 0 < turns[-1] <= division.accumulation
        first = 0
        for update, count in zip(expected, turns, strict=True):
            found: Counter[int] = Counter()
            for portion in (portion for portions in every for portion in portions[first : first + count]):
                assert 0 < len(portion.rows) <= division.batch
                for row in portion.rows if portion.weight else ():
                    found[row] += portion.share / len(portion.rows) / count / processes
            assert found == pytest.approx(update)
            first += count


def test_what_cant_be_divided_is_refused_with_what_can_be() -> None:
    with pytest.raises(UsageError, match="6 rows .3 at once, 2 times., which 4 processes can't") as caught:
        divided(3, 2, 4)
    assert caught.value.hint == "--num-processes 2 or 3 or 6"
    with pytest.raises(UsageError) as caught:
        divided(1, 1, 2)
    assert caught.value.hint == "leave --num-processes out"


def test_processes_see_the_rows_in_the_order_of_one(make_policy, tmp_path, monkeypatch) -> None:
    """In each update of each epoch together those of a training alone, as its audit saw them."""
    seen: list[set[int]] = []
    plain = dpo.TrainingAudit.check_batch

    def spy(audit, rows, inputs):
        while len(seen) < audit.step:
            seen.append(set())
        seen[audit.step - 1].update(rows.tolist())
        plain(audit, rows, inputs)

    monkeypatch.setattr(dpo.TrainingAudit, "check_batch", spy)
    settings = TrainSettings(num_train_epochs=2, per_device_train_batch_size=2, gradient_accumulation_steps=3)
    test_dpo.train(make_policy(), test_dpo.examples(11), settings, seed=7, scratch=tmp_path)
    division = divided(2, 3, 2)
    samplers = [PortionSampler(range(11), 7, division, index) for index in (0, 1)]  # type: ignore[arg-type]
    found: list[set[int]] = []
    for epoch in (0, 1):
        turns: list[list[list[int]]] = []
        for sampler in samplers:
            sampler.set_epoch(epoch)
            turns.append(list(sampler))
            assert len(turns[-1]) == len(sampler)
        together = [{*one, *other} for one, other in zip(*turns, strict=True)]
        size = division.accumulation
        found += [set().union(*together[start : start + size]) for start in range(0, len(together), size)]
    assert found == seen
    assert len(found) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--num-processes", 3), "update is made of 2 rows"),
        (("--accelerate-config", "no.yaml"), "goes with --num-processes"),
        (("--num-processes", 2, "--accelerate-config", "no.yaml"), "there is no file"),
        (("--num-processes", 2, "--accelerate-config", "fsdp.yaml"), "`distributed_type: FSDP`"),
        (("--num-processes", 2, "--accelerate-config", "far.yaml"), "is for 2 machines"),
        (("--num-processes", 2, "--device", "cuda:1"), "is one device"),
        (("--num-processes", 2, "--shard", "0/2"), "starts its own to train in"),
        (("--num-processes", 2, "--executor", "ray"), "has one worker train"),
    ],
)
def test_refused_before_work(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fsdp.yaml").write_text("distributed_type: FSDP\n")
    Path("far.yaml").write_text("distributed_type: MULTI_GPU\nnum_machines: 2\n")
    before = (finished / "iter-002" / "train" / "manifest.json").read_bytes()
    assert said in refused(2, *on(finished, "train", iteration=2), "--force", *words)
    assert (finished / "iter-002" / "train" / "manifest.json").read_bytes() == before
    assert not list((finished / "iter-002").glob(".train*"))
