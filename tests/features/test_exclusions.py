"""A gradient that is not finite costs its response, not the run; many of them stop it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import done, manifest, on, outputs, refused, rows
from safetensors.torch import load_file
from small_runs import small_run

from activedpo_cli.features import columns
from activedpo_cli.gradients.featurizer import Featurizer
from activedpo_cli.reports.selection import candidate_couples
from activedpo_cli.store.manifest import Started
from activedpo_cli.store.run import Run

Spoil = Callable[..., None]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """`spoil(run, iteration, ids, value)`: the gradients of these responses come out as `value`."""
    real = Featurizer.gradients

    def arrange(run: Path, iteration: int, ids: list[str], value: float) -> None:
        units = sorted((run / f"iter-{iteration:03d}" / "generate").glob("responses-*.jsonl"))
        responses = [row for unit in units for row in rows(unit)]
        wrong = [(r["prompt_token_ids"], r["token_ids"]) for r in responses if r["response_id"] in ids]
        assert len(wrong) == len(ids)

        def spoiled(self: Featurizer, given: Any) -> Any:
            found = real(self, given)
            features = found.features.clone()
            for place, row in enumerate(given):
                if (list(row[0]), list(row[1])) in wrong:
                    features[place, 3] = value
            return replace(found, features=features)

        monkeypatch.setattr(Featurizer, "gradients", spoiled)

    return arrange


@pytest.fixture(scope="module")
def featurized_original(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path) -> Path:
    run = small_run(tmp_path_factory.mktemp("featurized") / "run", small_model, prompts_file)
    done(*on(run, "generate"))
    done(*on(run, "featurize"))
    return run


@pytest.fixture
def begun(featurized_original: Path, tmp_path: Path) -> Path:
    """A run with features, of which all are finite."""
    return Path(shutil.copytree(featurized_original, tmp_path / "begun"))


def featurized(run: Path, iteration: int) -> list[str]:
    return [row["response_id"] for row in rows(run / f"iter-{iteration:03d}" / "featurize" / "rows.jsonl")]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_it_is_named_counted_and_forms_no_pair(
    value: float, begun: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "TOLERATED_SHARE", 0.1)
    everybody = featurized(begun, 1)
    gone = everybody[5]
    spoil(begun, 1, [gone], value)
    result = done(*on(begun, "featurize"), "--force")
    assert f"`{gone}` is left out: its features, norms are not finite" in result.stderr
    assert "1 left out, not finite" in result.stderr + result.stdout
    folder = begun / "iter-001" / "featurize"
    assert featurized(begun, 1) == [name for name in everybody if name != gone]
    assert rows(folder / "excluded.jsonl") == [{"response_id": gone, "columns": ["features", "norms"]}]
    assert manifest(begun, 1, "featurize")["summary"]["excluded"] == 1
    units = [load_file(path) for path in sorted(folder.glob("features-*.safetensors"))]
    features = torch.cat([unit["features"] for unit in units])
    assert torch.isfinite(features).all()
    assert len(features) == len(everybody)
    assert not features[5].any()
    done(*on(begun, "select"), "--method", "random", "--budget", 12)
    chosen = rows(begun / "iter-001" / "select" / "selection.jsonl")
    assert chosen
    assert gone not in {row[f"response_{side}_id"] for row in chosen for side in "ab"}


def test_rows_still_point_at_their_features(begun: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole in the rows must not shift the features of those behind it: every other pick has the score it had."""
    monkeypatch.setattr(columns, "TOLERATED_SHARE", 0.1)
    done(*on(begun, "select"), "--budget", 1)
    (before,) = rows(begun / "iter-001" / "select" / "selection.jsonl")
    first_of_all = featurized(begun, 1)[0]
    if first_of_all in (before["response_a_id"], before["response_b_id"]):
        first_of_all = featurized(begun, 1)[-1]
    spoil(begun, 1, [first_of_all], float("nan"))
    done(*on(begun, "featurize"), "--force", "--quiet")
    done(*on(begun, "select"), "--force", "--quiet")
    (after,) = rows(begun / "iter-001" / "select" / "selection.jsonl")
    assert (after["pair_id"], after["score"]) == (before["pair_id"], pytest.approx(before["score"], rel=1e-9))


def test_more_than_one_in_a_hundred_stop_the_stage(begun: Path, spoil: Spoil) -> None:
    gone = featurized(begun, 1)[0]
    expected = outputs(begun, 1, "featurize")
    spoil(begun, 1, [gone], float("nan"))
    told = refused(4, *on(begun, "featurize"), "--force")
    assert gone in told
    assert "more than 1%" in told
    assert outputs(begun, 1, "featurize") == expected, "the finished result stays"


def test_a_pair_labelled_before_leaves_v(finished: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "TOLERATED_SHARE", 0.2)
    folder = finished / "iter-002" / "featurize"
    before = rows(folder / "labelled.jsonl")
    labelled = {row["pair_id"]: row for row in rows(finished / "iter-001" / "label" / "outcomes.jsonl")}
    pair_id = before[0]["pair_id"]
    gone = labelled[pair_id]["response_a_id"]
    touched = {name for name, row in labelled.items() if gone in (row["response_a_id"], row["response_b_id"])}
    spoil(finished, 1, [gone], float("nan"))
    done(*on(finished, "featurize"), "--iteration", 2, "--force", "--quiet")
    assert {row["pair_id"] for row in rows(folder / "labelled.jsonl")} == {row["pair_id"] for row in before} - touched
    done(*on(finished, "select"), "--iteration", 2, "--force", "--quiet")


def test_what_was_left_out_is_remembered_over_an_interruption(
    begun: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "TOLERATED_SHARE", 0.2)
    shutil.rmtree(begun / "iter-001" / "featurize")
    names = [json.loads(line)["response_id"] for line in first_unit(begun)]
    spoil(begun, 1, [names[0]], float("nan"))
    done(*on(begun, "featurize"), "--quiet")
    expected = outputs(begun, 1, "featurize")
    folder = begun / "iter-001" / "featurize"
    record = json.loads((folder / "manifest.json").read_bytes())
    fields = {field.alias or name for name, field in Started.model_fields.items()}
    started = {name: value for name, value in record.items() if name in fields}
    for name in ("manifest.json", "rows.jsonl", "excluded.jsonl", "features-00001.safetensors"):
        (folder / name).unlink()
    (folder / "started.json").write_text(json.dumps(started))
    done(*on(begun, "featurize"), "--quiet")
    assert outputs(begun, 1, "featurize") == expected


def first_unit(run: Path) -> list[str]:
    return (run / "iter-001" / "generate" / "responses-00000.jsonl").read_text().splitlines()


def test_the_report_still_joins_scores_and_responses(
    finished: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of features have a hole where a response was left out; what comes behind it keeps its row."""
    monkeypatch.setattr(columns, "TOLERATED_SHARE", 0.2)
    gone = featurized(finished, 2)[0]
    spoil(finished, 2, [gone], float("nan"))
    done(*on(finished, "featurize"), "--iteration", 2, "--force", "--quiet")
    done(*on(finished, "select"), "--iteration", 2, "--force", "--quiet")
    run = Run.open(finished)
    manifests = {
        f"iter-002/{stage}": found for stage in ("featurize", "select") if (found := run.stage(stage, 2).manifest)
    }
    couples = candidate_couples(run, 2, manifests)
    assert couples is not None
    named = {frozenset(couple) for couple in couples}
    chosen = rows(finished / "iter-002" / "select" / "selection.jsonl")
    assert {frozenset((row["response_a_id"], row["response_b_id"])) for row in chosen} <= named
    assert all(a.rpartition("/")[0] == b.rpartition("/")[0] for a, b in couples)
    assert gone not in {name for couple in couples for name in couple}
