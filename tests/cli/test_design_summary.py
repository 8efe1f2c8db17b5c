"""What *select* notes about V, against V formed and inverted by hand from the files of the run."""

import json
from pathlib import Path

import pytest
import torch
from command_line import done, manifest, on, rows
from stored_features import labelled_phi, phi


def test_the_summary_is_about_v_with_the_batch_in_it(finished: Path) -> None:
    picked = rows(finished / "iter-002" / "select" / "selection.jsonl")
    in_v = torch.cat([labelled_phi(finished, 2), *(phi(finished, 2, row["pair_id"])[None] for row in picked)])
    v = 0.1 * torch.eye(in_v.shape[1], dtype=torch.float64) + in_v.T @ in_v
    design = manifest(finished, 2, "select")["summary"]["design"]
    assert design["pairs"] == 8
    assert design["ridge"] == 0.1
    assert design["condition"] == pytest.approx(float(torch.linalg.cond(v)))
    assert design["effective_dimension"] == pytest.approx(len(v) - 0.1 * float(torch.trace(torch.inverse(v))))
    assert design["last_to_first"] == pytest.approx(picked[-1]["score"] / picked[0]["score"])


def test_show_says_it(finished: Path) -> None:
    design = manifest(finished, 2, "select")["summary"]["design"]
    words = f"V of 8 pairs, λ 0.1: condition {design['condition']:.4g}, effective dimension"
    assert words in done(*on(finished, "show")).stdout
    assert words in done(*on(finished, "show", "features")).stdout
    assert json.loads(done(*on(finished, "show", "features"), "--json").stdout)["design"] == design


def test_a_method_without_v_has_none(finished: Path) -> None:
    done(*on(finished, "select"), "--iteration", 2, "--method", "random", "--force")
    assert "design" not in manifest(finished, 2, "select")["summary"]
    assert "condition" not in done(*on(finished, "show")).stdout
    assert json.loads(done(*on(finished, "show", "features"), "--json").stdout)["design"] is None
