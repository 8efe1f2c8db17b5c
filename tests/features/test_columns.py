"""Columns beside gradients: what featurize computes for a method, and what select hands to it."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import honest_policy as honest
import pytest
import torch
from command_line import done, manifest, on, outputs, refused, rows
from safetensors.torch import load_file
from small_runs import small_run

from activedpo_cli.features import columns
from activedpo_cli.gradients.featurizer import Featurizer
from activedpo_cli.select.methods import random as random_method
from activedpo_cli.select.methods.base import Candidates, Selection
from activedpo_cli.store.manifest import Started

COARSE_ORACLE = """
def score(prompts, responses):
    return [float(len(response) > 4) for response in responses]
"""
NEEDS = ("logps", "ref_logps", "hidden", "mean_hidden", "scores", "texts")
ADAPTERS = {1: "reference/initial-adapter/adapter", 2: "iter-001/train/adapter"}


def no_gradient(*_: Any, **__: Any) -> Any:
    raise AssertionError("a gradient was taken")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path) -> Iterator[Path]:
    """A run for a method that needs everything but gradients, up to the features of iteration 2; some answers are ties."""
    folder = tmp_path_factory.mktemp("columns")
    (folder / "coarse_oracle.py").write_text(COARSE_ORACLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(random_method, "NEEDS", NEEDS)
        changes = {"select__budget": 12, "select__method": "random"}
        run = small_run(folder / "run", small_model, prompts_file, "python:coarse_oracle:score", **changes)
        with pytest.MonkeyPatch.context() as forbidden:
            forbidden.setattr(Featurizer, "gradients", no_gradient)
            for stage in ("generate", "featurize", "select", "label"):
                done(*on(run, stage), "--quiet")
        done(*on(run, "train"), "--quiet")
        for stage in ("generate", "featurize"):
            done(*on(run, stage, iteration=2), "--quiet")
        yield run


@pytest.fixture
def columns_run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    folder = Path(shutil.copytree(made.parent, tmp_path / "copy"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(random_method, "NEEDS", NEEDS)
    return folder / "run"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], Candidates]:
    """`seen(run, iteration)`: selects, and returns what the method was given."""
    given: list[Candidates] = []
    real = random_method.choose

    def choose(candidates: Candidates, *arguments: Any) -> Selection:
        given.append(candidates)
        return real(candidates, *arguments)

    monkeypatch.setattr(random_method, "choose", choose)

    def select(run: Path, iteration: int) -> Candidates:
        done(*on(run, "select", iteration=iteration), "--force", "--quiet", "--method", "random", "--budget", 4)
        return given[-1]

    return select


def tensors_of(run: Path, iteration: int) -> dict[str, torch.Tensor]:
    folder = run / f"iter-{iteration:03d}" / "featurize"
    units = [load_file(path) for path in sorted(folder.glob("features-*.safetensors"))]
    return {name: torch.cat([unit[name] for unit in units]) for name in units[0]}


def honest_hidden(reference: Any, response: dict[str, Any]) -> torch.Tensor:
    tokens = torch.tensor([response["prompt_token_ids"] + response["token_ids"]])
    with torch.no_grad():
        return reference(input_ids=tokens, output_hidden_states=True).hidden_states[-1][0]


def assert_honest(run: Path, policy: Any, response: dict[str, Any], columns: dict[str, torch.Tensor], row: int) -> None:
    reference = honest.load(run, None)
    assert float(columns["logps"][row]) == pytest.approx(honest.logps(policy, [response])[0], abs=1e-4)
    assert float(columns["ref_logps"][row]) == pytest.approx(honest.logps(reference, [response])[0], abs=1e-4)
    states = honest_hidden(reference, response)
    assert torch.allclose(columns["hidden"][row], states[-1], rtol=1e-4, atol=1e-4)
    mean = states[len(response["prompt_token_ids"]) :].mean(dim=0)
    assert torch.allclose(columns["mean_hidden"][row], mean, rtol=1e-4, atol=1e-4)
    assert float(columns["scores"][row]) == float(len(response["text"]) > 4), "what the oracle says"
    assert int(columns["num_tokens"][row]) == len(response["token_ids"])


@pytest.mark.parametrize("iteration", [1, 2])
def test_columns_of_the_pool_are_transformers_own(made: Path, iteration: int) -> None:
    policy = honest.load(made, made / ADAPTERS[iteration])
    responses, columns = honest.responses_of(made, iteration), tensors_of(made, iteration)
    assert set(columns) == {"logps", "ref_logps", "hidden", "mean_hidden", "scores", "num_tokens"}
    assert {tensor.dtype for name, tensor in columns.items() if name != "num_tokens"} == {torch.float32}
    index = rows(made / f"iter-{iteration:03d}" / "featurize" / "rows.jsonl")
    for row in index[::3]:
        assert_honest(made, policy, responses[row["response_id"]], columns, row["row"])
    assert torch.equal(columns["logps"], columns["ref_logps"]) == (iteration == 1), (
        "the initial policy is the reference"
    )


def test_columns_of_labelled_pairs_are_transformers_own(made: Path) -> None:
    folder = made / "iter-002" / "featurize"
    labelled, columns = rows(folder / "labelled.jsonl"), load_file(folder / "labelled.safetensors")
    answered = rows(made / "iter-001" / "label" / "outcomes.jsonl")
    assert [row["pair_id"] for row in labelled] == [row["pair_id"] for row in answered]
    policy, responses = honest.load(made, made / ADAPTERS[2]), honest.responses_of(made, 1)
    for row, answer in list(zip(labelled, answered, strict=True))[::3]:
        for side in "ab":
            assert_honest(made, policy, responses[answer[f"response_{side}_id"]], columns, row[f"row_{side}"])
    assert manifest(made, 2, "featurize")["summary"]["labelled"] == len(answered)


def test_a_method_is_given_all_of_it(columns_run: Path, seen: Callable[[Path, int], Candidates]) -> None:
    given = seen(columns_run, 2)
    responses, columns = honest.responses_of(columns_run, 2), tensors_of(columns_run, 2)
    for name in ("logps", "ref_logps", "hidden"):
        assert torch.equal(getattr(given, name), columns[name])
    assert given.features is None
    index = rows(columns_run / "iter-002" / "featurize" / "rows.jsonl")
    assert given.texts == tuple(responses[row["response_id"]]["text"] for row in index)
    assert given.beta == 0.1
    assert manifest(columns_run, 2, "select")["settings"]["train.beta"] == 0.1
    by_hand = 0.1 * (columns["logps"].double() - columns["ref_logps"].double())
    assert torch.allclose(given.margins(), by_hand[given.row_a] - by_hand[given.row_b])
    assert not seen(columns_run, 1).margins().any()


def test_a_method_is_given_the_answers(columns_run: Path, seen: Callable[[Path, int], Candidates]) -> None:
    labelled = seen(columns_run, 2).labelled
    assert labelled is not None
    answered = rows(columns_run / "iter-001" / "label" / "outcomes.jsonl")
    preferred = [["tie", "a", "b"][int(sign)] for sign in labelled.preferred]
    assert preferred == [
        "tie" if row["preferred_id"] is None else "ab"[row["preferred_id"] == row["response_b_id"]] for row in answered
    ]
    assert set(preferred) == {"tie", "a", "b"}
    stored = load_file(columns_run / "iter-002" / "featurize" / "labelled.safetensors")
    for name in ("logps", "ref_logps", "hidden"):
        assert torch.equal(getattr(labelled, name), stored[name])
    assert labelled.features is None
    assert seen(columns_run, 1).labelled is None


def test_texts_stay_with_their_rows_behind_an_excluded_response(
    columns_run: Path, seen: Callable[[Path, int], Candidates], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "TOLERATED_SHARE", 0.5)
    real = Featurizer.forward

    def spoiled(self: Featurizer, given: Any, **asked: bool) -> Any:
        found = real(self, given, **asked)
        if found.hidden is None:
            return found
        hidden = found.hidden.clone()
        hidden[0] = torch.nan
        return replace(found, hidden=hidden)

    monkeypatch.setattr(Featurizer, "forward", spoiled)
    done(*on(columns_run, "featurize", iteration=1), "--force", "--quiet")
    folder = columns_run / "iter-001" / "featurize"
    gone = rows(folder / "excluded.jsonl")
    assert all(row["columns"] == ["hidden"] for row in gone)
    index, responses = rows(folder / "rows.jsonl"), honest.responses_of(columns_run, 1)
    assert index[0]["row"] == 1
    texts = seen(columns_run, 1).texts
    assert texts is not None
    assert len(texts) == len(tensors_of(columns_run, 1)["logps"]) == len(index) + len(gone)
    assert all(texts[row["row"]] == responses[row["response_id"]]["text"] for row in index)


def test_nothing_is_computed_twice(columns_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One backward and one forward pass for each unit, and no log-probabilities of a policy that is the reference."""
    calls: list[Any] = []

    def counted(name: str) -> None:
        real = getattr(Featurizer, name)

        def count(self: Featurizer, given: Any, **asked: bool) -> Any:
            calls.append((name, asked))
            return real(self, given, **asked)

        monkeypatch.setattr(Featurizer, name, count)

    counted("gradients")
    counted("forward")
    wanted = ("--set", "featurize.compute=[features,hidden,logps,ref_logps]", "--force", "--quiet")
    for iteration, logps in ((2, True), (1, False)):
        calls.clear()
        done(*on(columns_run, "featurize", iteration=iteration), *wanted)
        folder = columns_run / f"iter-{iteration:03d}" / "featurize"
        files = [*folder.glob("features-*.safetensors"), *folder.glob("labelled.safetensors")]
        assert calls == [("gradients", {}), ("forward", {"logps": logps, "hidden": True, "mean_hidden": False})] * len(
            files
        )
        assert set(load_file(files[0])) >= {"features", "norms", "logps", "ref_logps", "hidden", "num_tokens"}


def test_an_interrupted_stage_ends_where_it_would_have(columns_run: Path) -> None:
    expected = outputs(columns_run, 2, "featurize")
    folder = columns_run / "iter-002" / "featurize"
    record = json.loads((folder / "manifest.json").read_bytes())
    names = {field.alias or name for name, field in Started.model_fields.items()}
    for name in ("manifest.json", "rows.jsonl", "labelled.safetensors", "labelled.jsonl", "features-00001.safetensors"):
        (folder / name).unlink()
    (folder / "started.json").write_text(json.dumps({name: record[name] for name in record if name in names}))
    done(*on(columns_run, "featurize", iteration=2), "--quiet")
    assert manifest(columns_run, 2, "featurize")["execution"]["resumed"] is True
    assert outputs(columns_run, 2, "featurize") == expected


def test_a_column_that_is_not_there_is_named_with_the_command(
    finished: Path, monkeypatch: pytest.MonkeyPatch, seen: Callable[[Path, int], Candidates]
) -> None:
    """Gradients bring the log-probabilities, and texts are always there; a hidden state is not."""
    monkeypatch.setattr(random_method, "NEEDS", ("hidden", "logps", "texts"))
    told = refused(4, *on(finished, "select", iteration=2), "--force", "--method", "random")
    assert "method `random` needs hidden, which featurize of iteration 2 did not compute" in told
    assert "--set 'featurize.compute=[features,hidden]'" in told
    monkeypatch.setattr(random_method, "NEEDS", ("features", "logps", "texts"))
    given = seen(finished, 2)
    assert given.logps is not None
    assert given.labelled is not None
    assert given.labelled.features is not None
    assert "train.beta" not in manifest(finished, 2, "select")["settings"]


def test_a_method_that_needs_texts_alone_loads_no_model(
    new_run: Path, monkeypatch: pytest.MonkeyPatch, seen: Callable[[Path, int], Candidates]
) -> None:
    monkeypatch.setattr(random_method, "NEEDS", ("texts",))
    done(*on(new_run, "generate"), "--quiet")
    done(*on(new_run, "featurize"), "--quiet", "--set", "select.method=random")
    assert set(outputs(new_run, 1, "featurize")) == {"rows.jsonl"}
    given = seen(new_run, 1)
    columns = {field.name for field in fields(Candidates) if getattr(given, field.name) is None}
    assert columns == {"features", "logps", "ref_logps", "hidden", "mean_hidden", "scores", "times_sampled", "labelled"}
    assert given.texts is not None
    assert all(given.texts)
