"""`activedpo compare`: the picks of *select*, described by hand from the files of the run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import done, on, refused, rows, snapshot, without
from stored_features import phi

HAVE_FEATURES = {
    "activedpo", "badge", "bald", "dissimilar", "entropy", "k-center", "largest-norm", "random",
}  # fmt: skip
PROBE = """
import sys
from activedpo_cli.cli.app import app
for words in {commands!r}:
    try:
        app(words)
    except SystemExit as end:
        assert not end.code, words
    loaded = [name for name in {heavy!r} if name in sys.modules]
    if loaded:
        raise SystemExit(f"{{words}} loads {{loaded}}")
"""
FIRST_BYTES_OF_PNG = b"\x89PNG\r\n\x1a\n"


def compared(run: Path, *words: object) -> dict[str, Any]:
    return json.loads(done(*on(run, "compare"), *words, "--json").stdout)


def lengths(run: Path, iteration: int) -> dict[str, int]:
    files = sorted((run / f"iter-{iteration:03d}" / "generate").glob("responses-*.jsonl"))
    return {row["response_id"]: len(row["token_ids"]) for path in files for row in rows(path)}


def responses_of(pair: str) -> list[str]:
    stem, _, couple = pair.rpartition("/")
    return [f"{stem}/{name}" for name in couple.split("-")]


def selected(run: Path) -> list[str]:
    return [row["pair_id"] for row in rows(run / "iter-002" / "select" / "selection.jsonl")]


def test_the_picks_are_those_of_select(finished: Path) -> None:
    """Of the method that the run selects by, ties and draws included; of others where neither matters."""
    found = compared(finished, "activedpo", "random", "k-center")
    assert found["iteration"] == 2
    assert found["methods"]["activedpo"]["picked"] == selected(finished)
    done(*on(finished, "select"), "--iteration", 2, "--method", "k-center", "--force")
    assert found["methods"]["k-center"]["picked"] == selected(finished)
    done(*on(finished, "select"), "--iteration", 2, "--method", "random", "--force")
    assert found["methods"]["random"]["picked"] != selected(finished)
    again = compared(finished, "activedpo", "random")
    assert again["methods"]["random"]["picked"] == selected(finished)
    assert again["methods"]["activedpo"] == found["methods"]["activedpo"] | {
        "seconds": again["methods"]["activedpo"]["seconds"]
    }


def test_methods_that_break_ties_do_not_agree_by_that(finished: Path) -> None:
    """At t = 1 all margins are zero: with one seed, three methods would choose the very same pairs."""
    columns = "featurize.compute=[features,ref_logps]"
    done(*on(finished, "featurize"), "--iteration", 1, "--set", columns, "--force")
    names = ("random", "small-margin", "aplp-certainty")
    found = compared(finished, *names, "--iteration", 1, "--budget", 8)
    assert all(found["overlaps"][a][b] < 1 for a in names for b in names if a != b)
    picks = [found["methods"][name]["picked"] for name in names]
    again = compared(finished, *names[::-1], "--iteration", 1, "--budget", 8)
    assert [again["methods"][name]["picked"] for name in names] == picks


def test_methods_that_agree_or_draw_lots_are_named(finished: Path) -> None:
    """No margins at t = 1, a pool that `aplp` keeps whole, and differences of equal length."""
    columns = "featurize.compute=[features,logps,ref_logps]"
    names = ("random", "aplp", "aplp-certainty", "largest-norm", "activedpo")
    done(*on(finished, "featurize"), "--iteration", 2, "--set", columns, "--force")
    tied = "all its picks have one score, so the seeded order of ties decides as in `random`"
    words = ("--budget", 3, "--set", "select.normalise=pair", "--set", "select.methods.aplp.over_generate=99")
    second = compared(finished, *names, *words)["notes"]
    assert f"`largest-norm`: {tied}" in second
    assert "`aplp` chooses the same pairs as `aplp-certainty`" in second
    assert not any(tied in note for note in second if "aplp" in note)
    said = done(*on(finished, "compare"), *names, *words).stderr
    assert "note: `aplp` chooses the same pairs" in said
    done(*on(finished, "featurize"), "--iteration", 1, "--set", columns, "--force")
    first = compared(finished, *names, "--iteration", 1, "--budget", 8)["notes"]
    assert f"`aplp-certainty`: {tied}" in first
    assert not any(note.startswith(("`largest-norm`", "`random`")) for note in first)
    keeps = "`aplp` keeps all prompts, since 16 batches of 8 are no fewer than the"
    assert any(note.startswith(keeps) for note in first)


def test_settings_given_for_once(finished: Path) -> None:
    before = snapshot(finished)
    plain = compared(finished, "activedpo", "largest-norm")
    words = ("--set", "select.methods.activedpo.ridge=1e9", "--set", "select.normalise=none")
    found = compared(finished, "activedpo", "largest-norm", *words)
    assert found["given"] == {"select.methods.activedpo.ridge": 1e9, "select.normalise": "none"}
    assert found["methods"]["activedpo"]["settings"] == {"ridge": 1e9}
    assert plain["methods"]["activedpo"]["settings"] == {"ridge": 0.1}
    assert found["overlaps"]["activedpo"]["largest-norm"] == 1, "without V only the norm is left"
    assert plain["overlaps"]["activedpo"]["largest-norm"] < 1
    assert without(snapshot(finished), "compare/") == before


@pytest.mark.parametrize(
    "word",
    [
        "select.method=random", "select.budget=3", "select.methods.apo.greedy=true", "select.methods.activedpo.rigde=1",
        "select.activedpo=1", "train.learning_rate=1", "seed=3", "ridge",
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_here_are_refused(finished: Path, word: str) -> None:
    refused(2, *on(finished, "compare"), "activedpo", "random", "--set", word)
    assert not (finished / "compare").exists()


def test_a_ridge_that_is_not_positive_is_refused(finished: Path) -> None:
    said = refused(4, *on(finished, "compare"), "activedpo", "--set", "select.methods.activedpo.ridge=-1")
    assert "λ must be a positive number, not -1" in said
    assert not (finished / "compare").exists()


def test_numbers_by_hand(finished: Path) -> None:
    found = compared(finished, "--budget", 5)
    tokens = lengths(finished, 2)
    for row in found["methods"].values():
        picked = row["picked"]
        assert len(set(picked)) == 5
        assert row["prompts"] == len({pair.partition("/")[0] for pair in picked})
        assert row["mean_tokens"] == pytest.approx(np.mean([tokens[r] for p in picked for r in responses_of(p)]))
        features = torch.stack([phi(finished, 2, pair) for pair in picked]).numpy()
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        cosines = [abs(unit[i] @ unit[j]) for i in range(5) for j in range(i)]
        assert row["mean_abs_cosine"] == pytest.approx(np.mean(cosines))
        shares = np.linalg.svd(features, compute_uv=False) ** 2
        shares = shares[shares > 1e-15] / shares.sum()
        assert row["effective_rank"] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))
        assert row["seconds"] >= 0
    picks = {name: row["picked"] for name, row in found["methods"].items()}
    for one, others in found["overlaps"].items():
        for other, share in others.items():
            assert share == pytest.approx(sum(pair in picks[other] for pair in picks[one]) / 5)
    assert found["chance_overlap"] == pytest.approx(5 / found["candidates"]["pairs"])


def test_who_lacks_columns_is_named_and_left_out(finished: Path) -> None:
    result = done(*on(finished, "compare"), "--json")
    found = json.loads(result.stdout)
    assert set(found["methods"]) >= HAVE_FEATURES
    assert found["left_out"]["apo"] == ["hidden"]
    assert found["left_out"]["small-margin"] == ["ref_logps"]
    assert not set(found["left_out"]) & set(found["methods"])
    told = done(*on(finished, "compare"), "random", "apo")
    assert "left out: apo needs hidden" in told.stderr
    assert "--set 'featurize.compute=[features,hidden]'" in told.stderr
    assert "--set 'featurize.compute=[features,hidden]'" in refused(4, *on(finished, "compare"), "apo")


def test_tables(finished: Path) -> None:
    found = compared(finished, "activedpo", "random")
    told = done(*on(finished, "compare"), "activedpo", "random").stdout
    share = f"{100 * found['overlaps']['activedpo']['random']:.0f}"
    assert f"{found['methods']['random']['mean_abs_cosine']:.3f}" in told
    assert f"{found['methods']['activedpo']['effective_rank']:.2f}" in told
    lines = [line.split() for line in told.splitlines()]
    assert ["1", "activedpo", "100", share] in lines
    assert ["2", "random", share, "100"] in lines


def test_the_picture_and_the_numbers_are_written_and_nothing_else_changes(finished: Path, tmp_path: Path) -> None:
    before = snapshot(finished)
    found = compared(finished)
    place = finished / "compare" / "iter-002"
    assert found.pop("picture") == str(place / "overlap.png")
    assert (place / "overlap.png").read_bytes().startswith(FIRST_BYTES_OF_PNG)
    assert json.loads((place / "compare.json").read_bytes()) == found
    elsewhere = tmp_path / "elsewhere"
    done(*on(finished, "compare"), "random", "--iteration", 1, "--output", elsewhere)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["compare.json", "overlap.png"]
    done(*on(finished, "compare"), "random", "--iteration", 1, "--output", elsewhere)
    assert without(snapshot(finished), "compare/") == before
    assert "complete" in done(*on(finished, "status")).stdout


def test_foreign_files_are_kept(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "overlap.png").write_bytes(b"a photograph")
    assert "--output" in refused(3, *on(finished, "compare"), "random", "--output", tmp_path)
    assert "--output" in refused(3, *on(finished, "compare"), "random", "--output", tmp_path / "overlap.png")
    assert (tmp_path / "overlap.png").read_bytes() == b"a photograph"


def test_the_seed_decides_what_is_random(finished: Path) -> None:
    picks = [compared(finished, "random", "--seed", seed)["methods"]["random"]["picked"] for seed in range(4)]
    assert len({tuple(pick) for pick in picks}) > 1
    assert compared(finished, "random", "--seed", 2)["methods"]["random"]["picked"] == picks[2]


def test_without_features_diversity_is_unknown(finished: Path) -> None:
    done(*on(finished, "featurize"), "--iteration", 2, "--set", "featurize.compute=[hidden]", "--force")
    found = compared(finished)
    assert "activedpo" in found["left_out"]
    assert found["methods"]["apo"]["mean_abs_cosine"] is None
    assert found["methods"]["apo"]["effective_rank"] is None
    assert "–" in done(*on(finished, "compare"), "apo").stdout


@pytest.mark.whole
def test_neither_comparing_nor_explaining_loads_a_model_library(finished: Path) -> None:
    pair = rows(finished / "iter-002" / "select" / "selection.jsonl")[0]["pair_id"]
    commands = [[str(word) for word in on(finished, *words)] for words in (("compare",), ("show", "--why", pair))]
    probe = PROBE.format(commands=commands, heavy=("transformers", "peft", "trl", "datasets"))
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert pair in ended.stdout


def test_refusals(finished: Path, new_run: Path) -> None:
    assert "did you mean `k-center`?" in refused(2, *on(finished, "compare"), "k-centre")
    assert "can be chosen" in refused(4, *on(finished, "compare"), "--budget", 1000)
    assert "activedpo featurize" in refused(4, *on(new_run, "compare"))
    path = next((finished / "iter-002" / "featurize").glob("features-*.safetensors"))
    path.unlink()
    assert "activedpo featurize" in refused(4, *on(finished, "compare"))
    shutil.rmtree(finished / "iter-002" / "featurize")
    assert "activedpo featurize" in refused(4, *on(finished, "compare"))
    assert not (finished / "compare").exists()
