"""`activedpo show features`: what the manifest says, in words."""

import json
from pathlib import Path

from command_line import done, manifest, on, refused


def test_says_how_good_the_projection_is(finished: Path) -> None:
    told = done(*on(finished, "show", "features")).stdout
    quality = json.loads((finished / "iter-002" / "featurize" / "projection.json").read_bytes())
    assert "features of iteration 2" in told
    assert "factored, d 64, width 1" in told
    assert f"{quality['cosine_rmse']:.4f} root mean square, of cosines in {quality['pairs']} pairs" in told
    assert "1/√d is 0.1250" in told
    assert manifest(finished, 2, "featurize")["summary"]["projection"] == quality


def test_as_json_and_of_another_iteration(finished: Path) -> None:
    found = json.loads(done(*on(finished, "show", "features"), "--iteration", 1, "--json").stdout)
    assert found["iteration"] == 1
    assert found["proj_dim"] == 64
    assert found["labelled"] == 0
    assert found["excluded"] == []
    assert found["quality"]["floor"] == 0.125


def test_before_there_are_any(new_run: Path) -> None:
    assert "activedpo featurize" in refused(4, *on(new_run, "show", "features"))


def test_a_sketch_too_narrow_is_warned_about_with_the_way_out(new_run: Path) -> None:
    """Two matrices of rank 16 whose wide side is compressed to one number."""
    narrow = ("--lora-modules", "v_proj", "--lora-r", 16, "--proj-dim", 16)
    done(*on(new_run, "generate"))
    told = done(*on(new_run, "featurize"), *narrow).stderr
    assert "times what a dense projection would have" in told
    assert "--projection-width 2" in told
    told = done(*on(new_run, "featurize"), *narrow, "--projection", "count-sketch", "--force").stderr
    assert "--projection-width" not in told
