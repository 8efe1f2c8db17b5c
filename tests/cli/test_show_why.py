"""`activedpo show --why PAIR`, against V formed and inverted by hand and cosines computed one by one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import activedpo, done, on, refused, rows, snapshot
from stored_features import labelled_phi, phi

RIDGE = 0.1


def norm_given(row: torch.Tensor, *covered: torch.Tensor) -> float:
    """‖φ‖ in V⁻¹ by inverting V."""
    v = RIDGE * torch.eye(len(row), dtype=torch.float64)
    for other in covered:
        v += torch.outer(other, other)
    return float((row @ torch.inverse(v) @ row).sqrt())


def abs_cosine(row: torch.Tensor, other: torch.Tensor) -> float:
    return abs(float(row @ other / row.norm() / other.norm()))


def why(run: Path, pair: str, *words: object) -> dict[str, Any]:
    return json.loads(done(*on(run, "show", "--why", pair), *words, "--json").stdout)


def selection(run: Path, iteration: int) -> list[dict[str, Any]]:
    return rows(run / f"iter-{iteration:03d}" / "select" / "selection.jsonl")


def texts(run: Path, iteration: int) -> dict[str, str]:
    files = sorted((run / f"iter-{iteration:03d}" / "generate").glob("responses-*.jsonl"))
    return {row["response_id"]: row["text"] for path in files for row in rows(path)}


def unpicked(run: Path, iteration: int) -> str:
    """A pair of featurized responses that was not picked."""
    picked = {row["pair_id"] for row in selection(run, iteration)}
    names = [row["response_id"] for row in rows(run / f"iter-{iteration:03d}" / "featurize" / "rows.jsonl")]
    pairs = [f"{a}-{b.rpartition('/')[2]}" for a, b in zip(names, names[1:], strict=False) if a[:7] == b[:7]]
    return next(pair for pair in pairs if pair not in picked)


def test_uncertainties_of_every_pick(finished: Path) -> None:
    history = labelled_phi(finished, 2)
    picked = selection(finished, 2)
    features = [phi(finished, 2, row["pair_id"]) for row in picked]
    for place, row in enumerate(picked):
        found = why(finished, row["pair_id"])
        own = features[place]
        assert (found["rank"], found["score"], found["method"]) == (row["rank"], row["score"], "activedpo")
        assert found["norm"] == pytest.approx(float(own.norm()))
        assert found["at_start"] == pytest.approx(norm_given(own, *history))
        assert found["when_picked"] == pytest.approx(norm_given(own, *history, *features[:place]))
        assert found["when_picked"] == pytest.approx(row["score"])
        assert found["after_batch"] == pytest.approx(norm_given(own, *history, *features))


def test_a_pair_that_was_not_picked(finished: Path) -> None:
    pair = unpicked(finished, 2)
    own, history = phi(finished, 2, pair), labelled_phi(finished, 2)
    batch = [phi(finished, 2, row["pair_id"]) for row in selection(finished, 2)]
    found = why(finished, pair)
    assert (found["rank"], found["score"], found["when_picked"]) == (None, None, None)
    assert found["at_start"] == pytest.approx(norm_given(own, *history))
    assert found["after_batch"] == pytest.approx(norm_given(own, *history, *batch))
    assert found["at_start"] <= selection(finished, 2)[0]["score"]
    assert found["after_batch"] <= selection(finished, 2)[-1]["score"]


def test_nearest_pairs_with_their_texts(finished: Path) -> None:
    picked = selection(finished, 2)
    asked = picked[1]["pair_id"]
    own = phi(finished, 2, asked)
    found = why(finished, asked)
    chosen = {row["pair_id"]: abs_cosine(own, phi(finished, 2, row["pair_id"])) for row in picked}
    del chosen[asked]
    labelled_rows = rows(finished / "iter-002" / "featurize" / "labelled.jsonl")
    features = labelled_phi(finished, 2)
    labelled = {row["pair_id"]: abs_cosine(own, features[place]) for place, row in enumerate(labelled_rows)}
    for kind, expected, iteration in (("chosen", chosen, 2), ("labelled", labelled, 1)):
        best = sorted(expected, key=lambda name: -expected[name])[:3]
        assert [row["pair_id"] for row in found[f"nearest_{kind}"]] == best
        for row in found[f"nearest_{kind}"]:
            assert row["abs_cosine"] == pytest.approx(expected[row["pair_id"]])
            stem, _, couple = row["pair_id"].rpartition("/")
            for side, name in zip(("response_a", "response_b"), couple.split("-"), strict=True):
                assert row[side] == texts(finished, iteration)[f"{stem}/{name}"]
    outcomes = {row["pair_id"]: row for row in rows(finished / "iter-001" / "label" / "outcomes.jsonl")}
    for row in found["nearest_labelled"]:
        outcome = outcomes[row["pair_id"]]
        preferred = outcome["preferred_id"]
        assert row["label"] == (f"{preferred} preferred" if preferred else outcome["outcome"])


def test_both_orders_of_the_words_and_of_the_responses(finished: Path) -> None:
    pair = selection(finished, 2)[0]["pair_id"]
    stem, _, couple = pair.rpartition("/")
    other_way = f"{stem}/{'-'.join(reversed(couple.split('-')))}"
    expected = done(*on(finished, "show", "--why", pair)).stdout
    assert done(*on(finished, "show", pair, "--why")).stdout == expected
    assert done(*on(finished, "show", other_way, "--why")).stdout.splitlines()[:5] == expected.splitlines()[:5]


def test_words_and_nothing_changed(finished: Path) -> None:
    before = snapshot(finished)
    pair = selection(finished, 2)[0]["pair_id"]
    told = done(*on(finished, "show", "--why", pair)).stdout
    assert "picked by `activedpo`: rank 1 among " in told
    assert "with the whole batch in V" in told
    assert "nearest labelled pairs" in told
    assert "Question " in told
    assert snapshot(finished) == before


def test_before_anything_is_labelled_or_selected(finished: Path) -> None:
    """The first iteration has no labelled pairs; without a selection the score at the start is all there is."""
    pair = selection(finished, 1)[0]["pair_id"]
    assert why(finished, pair)["nearest_labelled"] == []
    shutil.rmtree(finished / "iter-002" / "select")
    names = [row["response_id"] for row in rows(finished / "iter-002" / "featurize" / "rows.jsonl")]
    later = f"{names[0]}-{names[1].rpartition('/')[2]}"
    found = why(finished, later)
    assert found["method"] is None
    assert (
        found["at_start"]
        == found["after_batch"]
        == pytest.approx(norm_given(phi(finished, 2, later), *labelled_phi(finished, 2)))
    )
    assert "nothing is selected" in done(*on(finished, "show", "--why", later)).stdout


def test_hostile_text_is_made_harmless(finished: Path) -> None:
    pair = selection(finished, 2)[0]
    for path in (finished / "iter-002" / "generate").glob("responses-*.jsonl"):
        found = rows(path)
        for row in found:
            row["text"] = "\x1b[2J\u202egone" if row["response_id"] == pair["response_a_id"] else row["text"]
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    told = done(*on(finished, "show", "--why", pair["pair_id"])).stdout
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert "gone" in told


def test_without_features(finished: Path) -> None:
    """A method that needs none has none: said with the command that computes them."""
    done(*on(finished, "featurize"), "--iteration", 2, "--set", "featurize.compute=[hidden]", "--force")
    told = refused(4, *on(finished, "show", "--why", selection(finished, 2)[0]["pair_id"]))
    assert "no features" in told
    assert "--set 'featurize.compute=[features,hidden]'" in told


def test_features_made_again_since(finished: Path) -> None:
    done(*on(finished, "featurize"), "--iteration", 2, "--set", "featurize.proj_dim=32", "--force")
    assert "activedpo select" in refused(4, *on(finished, "show", "--why", selection(finished, 2)[0]["pair_id"]))


def test_what_is_no_pair(finished: Path) -> None:
    pair = selection(finished, 2)[0]["pair_id"]
    assert "about one pair" in refused(2, *on(finished, "show", "--why"))
    assert "not a pair" in refused(2, *on(finished, "show", "--why", "features"))
    assert "one response" in refused(2, *on(finished, "show", "--why", f"{pair.rpartition('/')[0]}/r1-r1"))
    assert "has no features" in refused(4, *on(finished, "show", "--why", f"{pair.rpartition('/')[0]}/r1-r99"))
    assert activedpo(*on(finished, "show", pair)).exit_code == 0


def test_a_label_is_short_beside_its_pair(finished: Path) -> None:
    """By the record of the answers: the name of the response without what the pair's name says already."""
    table = done(*on(finished, "show")).stdout.splitlines()
    outcomes = rows(finished / "iter-002/label/outcomes.jsonl")
    answered = {row["pair_id"]: row["preferred_id"] for row in outcomes if row["preferred_id"] is not None}
    assert answered
    for pair, preferred in answered.items():
        (line,) = [line for line in table if pair in line]
        assert line.partition(pair)[2].split()[:2] == [preferred.split("/")[-1], "preferred"]
