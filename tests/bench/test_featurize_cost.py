"""The measurement: both passes get the same, in turns; ratios of repetitions; what a shortage of memory says."""

from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from activedpo_cli.base.errors import ActiveDPOError, UsageError
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.bench import featurize, measuring
from activedpo_cli.bench.featurize import FeaturizePlan, measure_featurize
from activedpo_cli.bench.measuring import median_ratio, seconds_in_turns
from activedpo_cli.bench.workload import Workload, plain_flops
from activedpo_cli.gradients.per_response import plain_pass
from activedpo_cli.gradients.quality import cosine_errors

CPU = torch.device("cpu")
WORKLOAD = Workload(responses=5, prompt_tokens=3, response_tokens=4, tokens_per_batch=14, seed=0)
PLAN = FeaturizePlan(
    workload=WORKLOAD, projection="factored", proj_dim=64, projection_width=1, repeats=2, seed=0, one_at_a_time=False
)


class Counted(SilentProgress):
    def __init__(self) -> None:
        self.total, self.done, self.is_open = 0, 0, False

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.total, self.is_open = total, True

    def advance(self, amount: int = 1) -> None:
        self.done += amount

    def stop(self) -> None:
        self.is_open = False


def test_both_passes_get_the_same_batches_in_turns(make_random_policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Any]] = []
    for name in ("plain_pass", "response_gradients"):
        original = getattr(featurize, name)
        monkeypatch.setattr(
            featurize,
            name,
            lambda model, batch, *rest, name=name, original=original: (
                seen.append((name, batch)),
                original(model, batch, *rest),
            ),
        )
    measure_featurize(make_random_policy(), PLAN, SilentProgress())
    turns = [seen[start : start + 3] for start in range(0, 18, 3)]
    assert [{name for name, _ in turn} for turn in turns] == [{"plain_pass"}, {"response_gradients"}] * 3
    batches = [batch for _, batch in turns[0]]
    assert sum(len(batch.input_ids) for batch in batches) == 5
    assert all([batch for _, batch in turn] == batches for turn in turns[1:]), "dataclasses of tensors: the very same"
    assert seen[18:] == [("plain_pass", batches[0]), ("response_gradients", batches[0])], "for memory"


def test_ratios_are_of_each_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-ups are left out, and a slow moment that hits one of both moves the median of ratios little."""
    assert median_ratio([2.0, 30.0, 6.0], [1.0, 10.0, 2.0]) == 3.0
    taken = iter([100, 100, 1, 2, 3, 4])
    monkeypatch.setattr(measuring, "seconds", lambda work, device: (work(), next(taken))[1])
    order: list[str] = []
    works = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    ended = count()
    assert seconds_in_turns(works, 2, CPU, lambda: next(ended)) == {"a": [1, 3], "b": [2, 4]}
    assert order == ["a", "b"] * 3
    assert next(ended) == 6


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_progress_ends_where_it_said(make_random_policy: Any, one_at_a_time: bool) -> None:
    progress = Counted()
    cost = measure_featurize(make_random_policy(), replace(PLAN, one_at_a_time=one_at_a_time), progress)
    assert progress.done == progress.total
    assert not progress.is_open
    assert (cost.ratio_to_one_at_a_time is not None) == one_at_a_time


def test_the_error_is_that_of_all_pairs_within_batches(make_random_policy: Any) -> None:
    policy = make_random_policy()
    cost = measure_featurize(policy, PLAN, SilentProgress())
    projection = PLAN.make_projection()
    errors = torch.cat([cosine_errors(policy, batch, projection) for batch in WORKLOAD.batches(64, CPU)])
    assert cost.quality is not None
    assert (cost.quality.pairs, cost.quality.floor) == (2, 1 / 8)
    assert cost.quality.cosine_rmse == pytest.approx(errors[:, 0].square().mean().sqrt().item())


def test_without_pairs_no_error_is_claimed(make_random_policy: Any) -> None:
    lonely = replace(PLAN, workload=replace(WORKLOAD, tokens_per_batch=1))
    assert measure_featurize(make_random_policy(), lonely, SilentProgress()).quality is None


def test_the_modes_of_checkpointing_are_measured(make_random_policy: Any) -> None:
    """Less is held, and the model is as it was."""
    policy = make_random_policy(num_hidden_layers=4)
    whole = replace(
        PLAN, repeats=1, workload=replace(WORKLOAD, prompt_tokens=30, response_tokens=2, tokens_per_batch=200)
    )
    usual = measure_featurize(policy, whole, SilentProgress())
    saving = measure_featurize(policy, replace(whole, gradient_checkpointing=True), SilentProgress())
    assert saving.peak_memory_bytes_plain < usual.peak_memory_bytes_plain
    assert saving.peak_memory_bytes < usual.peak_memory_bytes
    assert not any("forward" in vars(module) for module in policy.modules())


@pytest.mark.parametrize(
    ("name", "hint"), [("response_gradients", "--tokens-per-batch 7"), ("time_one_at_a_time", "--no-one")]
)
def test_a_shortage_of_memory_says_what_helps(
    name: str, hint: str, make_random_policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore words")

    monkeypatch.setattr(featurize, name, fail)
    with pytest.raises(ActiveDPOError, match="memory ran out") as caught:
        measure_featurize(make_random_policy(), replace(PLAN, one_at_a_time=True), SilentProgress())
    assert str(caught.value.hint).startswith(hint)
    assert caught.value.details == ("CUDA out of memory. Tried to allocate 20 GiB",)


def test_other_failures_are_not_taken_for_it(make_random_policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(featurize, "response_gradients", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        measure_featurize(make_random_policy(), PLAN, SilentProgress())


def test_an_unknown_projection_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="did you mean `factored`"):
        replace(PLAN, projection="factord")


class CountedOperations(TorchDispatchMode):
    """Adds up what torch's own formulas give for each operation."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def test_operations_are_those_that_torch_counts(make_random_policy: Any) -> None:
    """Torch sees attention's own products too, which the formula leaves out: little for prompts of one token."""
    policy = make_random_policy(hidden_size=64)
    workload = Workload(4, 1, 1, 64, 0)
    (batch,) = workload.batches(64, CPU)
    plain_pass(policy, batch)
    with CountedOperations() as counted:
        plain_pass(policy, batch)
    assert plain_flops(policy, workload) == pytest.approx(counted.total, rel=0.02)
