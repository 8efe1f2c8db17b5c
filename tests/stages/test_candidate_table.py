"""What *select* hands to a method, from the files that *featurize* left."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import done, on

from activedpo_cli.artifacts.feature_files import read_columns, read_labelled
from activedpo_cli.artifacts.run import Run
from activedpo_cli.stages.candidate_table import candidate_table
from activedpo_cli.stages.candidates import candidate_pairs


def test_features_have_unit_norm_to_the_last_digit_of_float64(finished_original: Path) -> None:
    """They are stored in float32; normalised in it, the difference of two like responses would be rounded away."""
    run = Run.open(finished_original)
    folder = run.stage("featurize", 2)
    labelled = read_labelled(folder)
    assert labelled is not None
    table = candidate_table(run, 2, run.config, candidate_pairs(run, 2, run.config), with_texts=False)
    assert table.features is not None
    assert table.labelled is not None
    assert table.labelled.features is not None
    for found, stored in ((table.features, read_columns(folder)), (table.labelled.features, labelled.columns)):
        expected = torch.nn.functional.normalize(stored["features"].double())
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-16)


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
