"""What goes wrong silently in a loop around DPO, checked on the files of a finished run."""

import json
from itertools import combinations
from pathlib import Path
from statistics import fmean

import honest_policy as honest
import numpy as np
import pytest
import torch
from command_line import done, manifest, on, rows
from safetensors.torch import load_file
from small_runs import SMALL


def features_of(run: Path, iteration: int) -> tuple[list[dict], dict[str, torch.Tensor]]:
    folder = run / f"iter-{iteration:03d}" / "featurize"
    units = [load_file(path) for path in sorted(folder.glob("features-*.safetensors"))]
    return rows(folder / "rows.jsonl"), {name: torch.cat([unit[name] for unit in units]) for name in units[0]}


def preferences(run: Path, iteration: int) -> tuple[list[dict], list[dict]]:
    """The stored responses that were preferred, and those that were not."""
    responses = honest.responses_of(run, iteration)
    chosen, rejected = [], []
    for row in rows(run / f"iter-{iteration:03d}" / "label" / "outcomes.jsonl"):
        if row["outcome"] == "chosen":
            pair = {row["response_a_id"], row["response_b_id"]}
            chosen.append(responses[row["preferred_id"]])
            rejected.append(responses[(pair - {row["preferred_id"]}).pop()])
    return chosen, rejected


def test_responses_are_stored_as_they_were_sampled(finished_original: Path) -> None:
    found = [row for t in (1, 2) for row in honest.responses_of(finished_original, t).values()]
    assert {row["finish_reason"] for row in found} == {"stop", "length"}
    stops = {*SMALL["generate.stop_token_ids"], 257}
    for row in found:
        assert stops.isdisjoint(row["token_ids"][:-1])
        ended = row["token_ids"][-1] in stops
        assert row["finish_reason"] == ("stop" if ended else "length")
        assert ended or len(row["token_ids"]) == SMALL["generate.max_new_tokens"]


def test_training_sees_the_stored_tokens_and_no_others(finished_original: Path) -> None:
    """An EOS added to a response that was cut off would show as one token more."""
    for iteration in (1, 2):
        chosen, rejected = preferences(finished_original, iteration)
        assert any(row["finish_reason"] == "length" for row in chosen + rejected)
        summary = manifest(finished_original, iteration, "train")["summary"]
        assert summary["preferences"] == len(chosen)
        assert summary["tokens"] == sum(len(row["token_ids"]) for row in chosen + rejected)


@pytest.mark.parametrize("iteration", [1, 2])
def test_features_are_gradients_of_the_current_policy(finished_original: Path, iteration: int) -> None:
    adapter = ["reference/initial-adapter/adapter", "iter-001/train/adapter"][iteration - 1]
    policy = honest.load(finished_original, finished_original / adapter)
    responses = honest.responses_of(finished_original, iteration)
    index, columns = features_of(finished_original, iteration)
    assert len(index) == len(columns["features"])
    for row in index[::5]:
        response = responses[row["response_id"]]
        assert float(columns["exact_norms"][row["row"]]) == pytest.approx(
            honest.gradient_norm(policy, response), rel=1e-3
        )
        assert float(columns["logps"][row["row"]]) == pytest.approx(honest.logps(policy, [response])[0], abs=1e-4)
        assert int(columns["num_tokens"][row["row"]]) == len(response["token_ids"])
    assert torch.allclose(columns["norms"], columns["features"].norm(dim=1))
    assert not torch.allclose(columns["norms"], torch.ones_like(columns["norms"])), "features are stored raw"


def test_what_was_labelled_is_featurized_again(finished_original: Path) -> None:
    folder = finished_original / "iter-002" / "featurize"
    labelled, tensors = rows(folder / "labelled.jsonl"), load_file(folder / "labelled.safetensors")
    answered = rows(finished_original / "iter-001" / "label" / "outcomes.jsonl")
    assert [row["pair_id"] for row in labelled] == [row["pair_id"] for row in answered]
    policy = honest.load(finished_original, finished_original / "iter-001" / "train" / "adapter")
    responses = honest.responses_of(finished_original, 1)
    old_index, old = features_of(finished_original, 1)
    old_row = {row["response_id"]: row["row"] for row in old_index}
    for row, answer in zip(labelled, answered, strict=True):
        for side in ("a", "b"):
            name, place = answer[f"response_{side}_id"], row[f"row_{side}"]
            now = honest.gradient_norm(policy, responses[name])
            assert float(tensors["exact_norms"][place]) == pytest.approx(now, rel=1e-3)
            assert not torch.allclose(tensors["features"][place], old["features"][old_row[name]])


@pytest.mark.parametrize("iteration", [1, 2])
def test_selection_is_the_textbooks(finished_original: Path, iteration: int) -> None:
    """Eq. 3 and 4 with a d × d inverse, from the files alone."""
    index, columns = features_of(finished_original, iteration)
    unit = columns["features"].double() / columns["features"].double().norm(dim=1, keepdim=True)
    candidates = {
        f"{a['response_id']}-{b['response_id'].rpartition('/')[2]}": (unit[a["row"]] - unit[b["row"]]).numpy()
        for a, b in combinations(index, 2)
        if a["prompt_id"] == b["prompt_id"]
    }
    v = 0.1 * np.eye(unit.shape[1])
    if iteration == 2:
        folder = finished_original / "iter-002" / "featurize"
        earlier = load_file(folder / "labelled.safetensors")["features"].double()
        earlier = earlier / earlier.norm(dim=1, keepdim=True)
        for row in rows(folder / "labelled.jsonl"):
            phi = (earlier[row["row_a"]] - earlier[row["row_b"]]).numpy()
            v += np.outer(phi, phi)
    picked = rows(finished_original / f"iter-{iteration:03d}" / "select" / "selection.jsonl")
    assert len(picked) == SMALL["select.budget"]
    for rank, row in enumerate(picked, start=1):
        inverse = np.linalg.inv(v)
        norms = {name: float(np.sqrt(phi @ inverse @ phi)) for name, phi in candidates.items()}
        best = max(norms, key=norms.__getitem__)
        assert (row["rank"], row["pair_id"]) == (rank, best)
        assert row["score"] == pytest.approx(norms[best], rel=1e-6)
        phi = candidates.pop(best)
        v += np.outer(phi, phi)


@pytest.mark.parametrize("iteration", [1, 2])
def test_training_continues_from_the_adapter_that_made_the_features(finished: Path, iteration: int) -> None:
    done(*on(finished, "train", iteration=iteration), "--force", "--learning-rate", 1e-12, "--quiet")
    before = ["reference/initial-adapter/adapter", "iter-001/train/adapter"][iteration - 1]
    start = load_file(finished / before / "adapter_model.safetensors")
    end = load_file(finished / f"iter-{iteration:03d}" / "train" / "adapter" / "adapter_model.safetensors")
    assert start.keys() == end.keys()
    assert all(torch.allclose(start[name], end[name], rtol=0, atol=1e-9) for name in start)
    assert any("lora_B" in name and start[name].any() for name in start) == (iteration == 2)


@pytest.mark.parametrize("labels", ["new", "all"])
def test_the_reference_is_the_initial_model_in_every_iteration(finished: Path, labels: str) -> None:
    """With all preferences in one batch, the first logged rewards are β(log π_θ − log π_SFT) before any update."""
    options = ("--force", "--train-batch-size", 100, "--labels", labels, "--beta", 0.5, "--quiet")
    done(*on(finished, "train", iteration=2), *options)
    step = rows(finished / "iter-002" / "train" / "metrics.jsonl")[0]
    iterations = (1, 2) if labels == "all" else (2,)
    sides = [preferences(finished, t) for t in iterations]
    policy = honest.load(finished, finished / "iter-001" / "train" / "adapter")
    reference = honest.load(finished, None)
    for side, name in enumerate(("chosen", "rejected")):
        responses = [row for pair in sides for row in pair[side]]
        ratios = np.subtract(honest.logps(policy, responses), honest.logps(reference, responses))
        assert abs(ratios).max() > 1e-2
        assert step[f"rewards/{name}"] == pytest.approx(0.5 * ratios.mean(), abs=1e-4)


def test_the_first_iteration_starts_at_the_reference(finished: Path) -> None:
    step = rows(finished / "iter-001" / "train" / "metrics.jsonl")[0]
    assert step["step"] == 1
    assert step["rewards/chosen"] == step["rewards/rejected"] == 0
    done(*on(finished, "train", iteration=2), "--force", "--start", "reference", "--quiet")
    step = rows(finished / "iter-002" / "train" / "metrics.jsonl")[0]
    assert step["rewards/chosen"] == step["rewards/rejected"] == 0


@pytest.mark.parametrize("iteration", [1, 2])
def test_evaluation_by_hand(finished_original: Path, iteration: int) -> None:
    run = finished_original
    metrics = json.loads((run / f"iter-{iteration:03d}" / "evaluate" / "metrics.json").read_bytes())
    ours, before = honest.responses_of(run, iteration, "evaluate"), honest.responses_of(run, 0, "evaluate")
    policy = honest.load(run, run / f"iter-{iteration:03d}" / "train" / "adapter")
    reference = honest.load(run, None)

    def reward(row: dict) -> float:
        text = row["text"]
        worth = [1.0 if c in "aeiou " else 0.5 if c in "bcdfghjklmnpqrstvwxyz" else 0.0 for c in text]
        return sum(worth) / len(worth) if worth else 0.0

    def of_prompts(values: dict[str, float]) -> float:
        groups: dict[str, list[float]] = {}
        for name, value in values.items():
            groups.setdefault(name.partition("/")[0], []).append(value)
        assert len(groups) == 4
        return fmean(fmean(group) for group in groups.values())

    found = list(ours.values())
    ratios = np.subtract(honest.logps(policy, found), honest.logps(reference, found))
    assert metrics["kl_to_reference"] == pytest.approx(of_prompts(dict(zip(ours, ratios, strict=True))), abs=1e-4)
    assert metrics["reward_mean"] == pytest.approx(of_prompts({name: reward(row) for name, row in ours.items()}))
    assert metrics["reward_mean_initial"] == pytest.approx(
        of_prompts({name: reward(row) for name, row in before.items()})
    )
    wins = {}
    for name, row in ours.items():
        old = reward(before[name.replace(f"/i{iteration:03d}/", "/i000/")])
        wins[name] = 1.0 if reward(row) > old else 0.5 if reward(row) == old else 0.0
    assert metrics["win_rate"] == pytest.approx(of_prompts(wins))
    assert metrics["response_tokens_mean"] == pytest.approx(fmean(len(row["token_ids"]) for row in found))
    assert metrics["labels_spent"] == 4 * iteration
