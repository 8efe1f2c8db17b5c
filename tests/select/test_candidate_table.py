"""What *select* hands to a method, from the files that *featurize* left."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import done, manifest, on, refused, rows

from activedpo_cli.pairs.candidates import candidate_pairs
from activedpo_cli.select.candidate_table import candidate_table
from activedpo_cli.store.feature_files import read_columns, read_labelled
from activedpo_cli.store.run import Run


def test_responses_have_unit_norm_to_the_last_digit_of_float64(finished_original: Path) -> None:
    """Features are stored in float32; normalised in it, the difference of two like responses would be rounded away."""
    run = Run.open(finished_original)
    folder = run.stage("featurize", 2)
    labelled = read_labelled(folder)
    assert labelled is not None
    table = candidate_table(run, 2, run.config, candidate_pairs(run, 2, run.config), with_texts=False)
    for found, pairs, stored in (
        (table.pair_features(), table, read_columns(folder)),
        (table.history(), labelled, labelled.columns),
    ):
        unit = torch.nn.functional.normalize(stored["features"].double())
        torch.testing.assert_close(found, unit[pairs.row_a] - unit[pairs.row_b], rtol=1e-13, atol=1e-15)


def test_copies_of_a_response_are_counted(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more samples of the text of one response, of which no features are computed."""
    done(*on(finished, "featurize", iteration=2), "--force", "--quiet", "--set", "featurize.compute=[logps]")
    run = Run.open(finished)
    pairs = candidate_pairs(run, 2, run.config)
    once = candidate_table(run, 2, run.config, pairs, with_texts=False)
    assert once.times_sampled is not None
    assert set(once.times_sampled.tolist()) == {1}
    responses = list(run.responses(2))
    at = next(place for place, row in enumerate(responses) if row.response_id == pairs[3].response_b_id)
    copies = [replace(responses[at], response_id=f"{responses[at].response_id}{n}") for n in "01"]
    monkeypatch.setattr(run, "responses", lambda _: [*responses[: at + 1], *copies, *responses[at + 1 :]])
    table = candidate_table(run, 2, run.config, pairs, with_texts=False)
    assert table.times_sampled is not None
    assert table.times_sampled[pairs[3].row_b] == 3
    assert int(table.times_sampled.sum()) == len(table.times_sampled) + 2
    changed = (table.prompt_entropies() != once.prompt_entropies()).nonzero().flatten().tolist()
    assert {pairs[row].prompt_id for row in changed} == {pairs[3].prompt_id}


def test_a_frozen_history_is_what_the_pairs_were_chosen_by(finished: Path) -> None:
    """φ of iteration 1 as *select* of iteration 1 had it, from the file of its features; none computed again."""
    done(*on(finished, "select", iteration=2), "--force", "--history", "frozen", "--quiet")
    run = Run.open(finished)
    table = candidate_table(run, 2, run.config, candidate_pairs(run, 2, run.config), with_texts=False)
    stored = torch.nn.functional.normalize(read_columns(run.stage("featurize", 1))["features"].double())
    row_of = {row["response_id"]: row["row"] for row in rows(finished / "iter-001/featurize/rows.jsonl")}
    answers = rows(finished / "iter-001/label/outcomes.jsonl")
    expected = torch.stack([stored[row_of[a["response_a_id"]]] - stored[row_of[a["response_b_id"]]] for a in answers])
    torch.testing.assert_close(table.history(), expected, rtol=1e-14, atol=1e-16)
    first = candidate_table(run, 1, run.config, candidate_pairs(run, 1, run.config), with_texts=False)
    assert len(first.history()) == 0
    inputs = manifest(finished, 2, "select")["inputs"]
    assert {"iter-001/featurize", "iter-002/featurize"} <= inputs.keys()
    picked = rows(finished / "iter-002/select/selection.jsonl")[0]
    v = 0.1 * np.eye(expected.shape[1]) + (expected.T @ expected).numpy()
    best = max(float(np.sqrt(phi @ np.linalg.inv(v) @ phi)) for phi in table.pair_features().numpy())
    assert picked["score"] == pytest.approx(best, rel=1e-9)
    assert done(*on(finished, "show", picked["pair_id"], "--why"))
    shutil.rmtree(finished / "iter-001" / "featurize")  # as is done to save space
    assert "featurize" in refused(4, *on(finished, "show", picked["pair_id"], "--why"))
