"""What *select* hands to a method, from the files that *featurize* left."""

from pathlib import Path

import torch

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
