"""Every kind of number in `report.json` equals one that is worked out here from the files of the run."""

import hashlib
import json
import math
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import done, manifest, on, rows
from report_page import Page, draw_quickly, facts, panels, series
from safetensors.numpy import load_file

POINTS = (1, 5, 10, 15, 19)


def five(values: list[float]) -> list[float]:
    """5, 25, 50, 75 and 95 % by the standard library."""
    twentieths = statistics.quantiles(values, n=20, method="inclusive")
    return [twentieths[place - 1] for place in POINTS]


def box(found: dict[str, Any], place: int) -> list[float]:
    parts = ("low", "lower_quartile", "y", "upper_quartile", "high")
    return [found[part][place] for part in parts]


def stage(run: Path, iteration: int, name: str) -> Path:
    return run / f"iter-{iteration:03d}" / name


def per_prompt(values: dict[str, float]) -> dict[str, list[float]]:
    """Values by response as values by prompt, in the order of the samples."""
    groups: dict[str, list[float]] = {}
    for name in sorted(values):
        groups.setdefault(name.partition("/")[0], []).append(values[name])
    return groups


def rewards(run: Path, iteration: int) -> dict[str, list[float]]:
    if iteration == 0:
        (path,) = (run / "reference" / "evaluate").glob("rewards-*.jsonl")
    else:
        path = stage(run, iteration, "evaluate") / "samples.jsonl"
    return per_prompt({row["response_id"]: row["reward"] for row in rows(path)})


def tokens(run: Path, iteration: int) -> dict[str, int]:
    paths = stage(run, iteration, "generate").glob("responses-*.jsonl")
    return {row["response_id"]: len(row["token_ids"]) for path in paths for row in rows(path)}


def candidates(run: Path, iteration: int) -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """Response ids, feature rows and ranks of every candidate."""
    scores = load_file(stage(run, iteration, "select") / "scores.safetensors")
    ids = [row["response_id"] for row in rows(stage(run, iteration, "featurize") / "rows.jsonl")]
    return [(ids[a], ids[b]) for a, b in scores["candidate_rows"]], scores["candidate_rows"], scores["rank"]


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def phi(run: Path, iteration: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """φ of every candidate, of the picked ones, and of what was labelled earlier; responses brought to unit norm."""
    folder = stage(run, iteration, "featurize")
    paths = sorted(folder.glob("features-*.safetensors"))
    features = unit(np.concatenate([load_file(path)["features"] for path in paths]).astype(float))
    _, couples, rank = candidates(run, iteration)
    pool = features[couples[:, 0]] - features[couples[:, 1]]
    if not (folder / "labelled.jsonl").exists():
        return pool, pool[rank > 0], np.zeros((0, pool.shape[1]))
    before = unit(load_file(folder / "labelled.safetensors")["features"].astype(float))
    pairs = rows(folder / "labelled.jsonl")
    return pool, pool[rank > 0], np.stack([before[pair["row_a"]] - before[pair["row_b"]] for pair in pairs])


def cosines(differences: np.ndarray) -> list[float]:
    normed = unit(differences)
    return [abs(float(normed[i] @ normed[j])) for i in range(len(normed)) for j in range(i)]


def test_rewards_over_prompts_with_the_initial_model_first(report_original: Path, finished_original: Path) -> None:
    found = series(report_original, "reward")["finished"]
    means = [[statistics.fmean(group) for group in rewards(finished_original, t).values()] for t in (0, 1, 2)]
    assert found["y"] == pytest.approx([statistics.fmean(row) for row in means])
    assert found["x"] == [0, 4, 8]
    t_quantile = 3.182446305284263  # 97.5 % of Student's t with 3 degrees of freedom, from tables; 4 held-out prompts
    half_widths = [t_quantile * statistics.stdev(row) / math.sqrt(4) for row in means]
    assert [y - low for y, low in zip(found["y"], found["low"], strict=True)] == pytest.approx(half_widths)
    assert [high - y for y, high in zip(found["y"], found["high"], strict=True)] == pytest.approx(half_widths)
    assert found["sources"] == [
        f"finished/{name}" for name in ("initial-evaluation", "iter-001/evaluate", "iter-002/evaluate")
    ]


def test_win_rates_match_samples(report_original: Path, finished_original: Path) -> None:
    before = rewards(finished_original, 0)
    expected = []
    for iteration in (1, 2):
        after = rewards(finished_original, iteration)
        wins = [
            (new > old) + (new == old) / 2
            for name in before
            for new, old in zip(after[name], before[name], strict=True)
        ]
        expected.append(statistics.fmean(wins))
    assert series(report_original, "win-rate")["finished"]["y"] == pytest.approx(expected)


def test_kl_and_length(report_original: Path, finished_original: Path) -> None:
    samples = [rows(stage(finished_original, t, "evaluate") / "samples.jsonl") for t in (1, 2)]
    kl = [statistics.fmean(row["logps"] - row["ref_logps"] for row in found) for found in samples]
    assert series(report_original, "distance", 0)["finished"]["y"] == pytest.approx(kl)
    lengths = [statistics.fmean(row["num_tokens"] for row in found) for found in samples]
    assert series(report_original, "distance", 1)["finished"]["y"][1:] == pytest.approx(lengths)


def test_scores_by_rank(report_original: Path, finished_original: Path) -> None:
    (panel,) = panels(report_original, "score-decay")  # `random` has no scores
    assert panel["title"] == "finished"
    for iteration, found in zip((1, 2), panel["series"], strict=True):
        selection = rows(stage(finished_original, iteration, "select") / "selection.jsonl")
        assert found["y"] == [row["score"] for row in selection]
        assert found["x"] == [row["rank"] for row in selection]


@pytest.mark.parametrize("iteration", [1, 2])
def test_likeness_among_picked_and_among_all(report_original: Path, finished_original: Path, iteration: int) -> None:
    """The pool is small enough for every pair to count."""
    pool, picked, _ = phi(finished_original, iteration)
    assert len(pool) <= 400
    found = series(report_original, "similarity")
    assert box(found["picked"], iteration - 1) == pytest.approx(five(cosines(picked)), abs=1e-6)
    assert box(found["candidates"], iteration - 1) == pytest.approx(five(cosines(pool)), abs=1e-6)


@pytest.mark.parametrize("iteration", [1, 2])
def test_the_effective_rank_counts_history_and_batch(
    report_original: Path, finished_original: Path, iteration: int
) -> None:
    _, picked, history = phi(finished_original, iteration)
    assert len(history) == 4 * (iteration - 1)
    squares = np.linalg.svd(np.concatenate([history, picked]), compute_uv=False) ** 2
    shares = squares / squares.sum()
    expected = float(np.exp(-(shares * np.log(shares)).sum()))
    found = series(report_original, "effective-rank")
    assert found["finished"]["y"][iteration - 1] == pytest.approx(expected, rel=1e-5)
    assert found["finished"]["x"][iteration - 1] == 4 * iteration
    by_chance = found["finished, random last batch"]["y"][iteration - 1]
    assert 1 < by_chance < 4 * iteration


def test_a_frozen_history_counts_as_it_was_when_each_pair_was_chosen(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V of iteration 2 has the features of iteration 1 for its pairs, not those computed again; without them no rank."""
    draw_quickly(monkeypatch)
    for name in ("select", "label", "train", "evaluate"):
        shutil.rmtree(stage(finished, 2, name))
    done(*on(finished, "select", iteration=2), "--set", "select.history=frozen")
    done("report", finished)
    _, picked, recomputed = phi(finished, 2)
    _, frozen, _ = phi(finished, 1)  # all of iteration 1's picks were answered
    assert len(frozen) == len(recomputed) == 4
    ranks = []
    for history in (frozen, recomputed):
        squares = np.linalg.svd(np.concatenate([history, picked]), compute_uv=False) ** 2
        shares = squares / squares.sum()
        ranks.append(float(np.exp(-(shares * np.log(shares)).sum())))
    assert abs(ranks[0] - ranks[1]) > 1e-3, "else nothing tells them apart"
    found = series(finished / "report", "effective-rank")["finished"]
    assert found["y"][1] == pytest.approx(ranks[0], rel=1e-5)
    for path in stage(finished, 1, "featurize").glob("features-*"):
        path.unlink()
    done("report", finished, "--force")
    assert (
        "the feature files of iter-001/featurize, which V keeps, were deleted"
        in Page(finished / "report" / "index.html").text
    )


@pytest.mark.parametrize("iteration", [1, 2])
def test_lengths_of_picked_and_of_candidates(report_original: Path, finished_original: Path, iteration: int) -> None:
    lengths = tokens(finished_original, iteration)
    couples, _, rank = candidates(finished_original, iteration)
    pool = [lengths[name] for couple in couples for name in couple]
    picked = [lengths[name] for couple, place in zip(couples, rank, strict=True) if place for name in couple]
    found = series(report_original, "lengths")
    assert box(found["picked"], iteration - 1) == pytest.approx(five(picked))
    assert box(found["candidates"], iteration - 1) == pytest.approx(five(pool))


def test_what_the_labels_say(report_original: Path, finished_original: Path) -> None:
    gaps = series(report_original, "score-gap")["labelled pairs"]
    for place, iteration in enumerate((1, 2)):
        outcomes = rows(stage(finished_original, iteration, "label") / "outcomes.jsonl")
        assert box(gaps, place) == pytest.approx(five([abs(row["score_a"] - row["score_b"]) for row in outcomes]))
        lengths = tokens(finished_original, iteration)
        wins = []
        for row in outcomes:
            if row["preferred_id"] and lengths[row["response_a_id"]] != lengths[row["response_b_id"]]:
                longer = max(row["response_a_id"], row["response_b_id"], key=lengths.__getitem__)
                wins.append(row["preferred_id"] == longer)
        found = next(row for row in facts(report_original)["runs"][0]["labels"] if row["iteration"] == iteration)
        assert found["unequal_pairs"] == len(wins)
        assert (found["longer_won"] or [None])[0] == (pytest.approx(statistics.fmean(wins)) if wins else None)
        counts = {
            name: sum(row["outcome"] == name for row in outcomes) for name in ("chosen", "tie", "both_bad", "skip")
        }
        assert found["counts"] == counts


def test_training_curves_are_joined(report_original: Path, finished_original: Path) -> None:
    logged = [rows(stage(finished_original, t, "train") / "metrics.jsonl") for t in (1, 2)]
    shown = {
        panel["title"]: {row["label"]: row for row in panel["series"]} for panel in panels(report_original, "training")
    }
    for title, column in (
        ("DPO loss (nats)", "loss"),
        ("margin", "rewards/margins"),
        ("log π of chosen (nats)", "logps/chosen"),
    ):
        found = shown[title]["finished"]
        assert found["y"] == [row[column] for part in logged for row in part]
        assert found["marked"] == [0, len(logged[0])]
        assert found["x"] == list(range(1, len(found["y"]) + 1))


def test_seconds_by_stage(report_original: Path, finished_original: Path) -> None:
    found = series(report_original, "cost")
    for name in ("generate", "featurize", "select", "label", "train", "evaluate"):
        expected = [manifest(finished_original, t, name)["execution"]["seconds"] for t in (1, 2)]
        assert found[name]["y"] == expected
    seconds = {name: sum(row["y"]) for name, row in found.items()}
    part = 100 * (seconds["featurize"] + seconds["select"]) / sum(seconds.values())
    said = re.search(r"finished: ([\d.]+) s in all, ([\d.]+) %", Page(report_original / "index.html").text)
    assert said
    assert float(said[1]) == pytest.approx(sum(seconds.values()), rel=0.06)
    assert float(said[2]) == pytest.approx(part, abs=0.06)


def test_a_resumed_stage_says_which_attempts_are_counted(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record with a number of attempts has the seconds of all; an older one has those of the last attempt."""
    draw_quickly(monkeypatch)
    for name, execution in (("train", {"resumed": True, "attempts": 3}), ("generate", {"resumed": True})):
        path = stage(finished, 2, name) / "manifest.json"
        record = json.loads(path.read_bytes())
        record["execution"].pop("attempts", None)
        path.write_text(json.dumps(record | {"execution": record["execution"] | execution | {"seconds": 12.5}}))
    done("report", finished)
    page = Page(finished / "report" / "index.html").text
    assert "finished: only the last attempt is counted of iter-002/generate, whose records are older" in page
    assert "finished: all attempts are counted of iter-002/train (3 attempts)" in page
    assert series(finished / "report", "cost")["train"]["y"][1] == 12.5
    found = {row["name"]: row["attempts"] for row in facts(finished / "report")["runs"][0]["stages"]}
    assert (found["iter-002/train"], found["iter-002/generate"]) == (3, None)


def test_what_two_runs_have_in_common(report_original: Path, finished_original: Path, random_original: Path) -> None:
    """Both began with the same responses; at iteration 2 only one has any."""
    picked = [
        {row["pair_id"] for row in rows(stage(run, 1, "select") / "selection.jsonl")}
        for run in (finished_original, random_original)
    ]
    common, pool = len(picked[0] & picked[1]), len(candidates(finished_original, 1)[0])
    (found,) = facts(report_original)["overlaps"]
    assert (found["iteration"], found["candidates"], found["in_both"]) == (1, pool, common)
    assert (found["share"], found["by_chance"]) == (common / 4, pytest.approx(4 / pool))
    cells = ["1", str(pool), str(common), f"{100 * common / 4:.1f} %", f"{100 * 4 / pool:.1f} %"]
    assert ["finished and by-chance", *cells] in Page(report_original / "index.html").rows


def test_every_number_names_a_stage_whose_digest_is_there(report_original: Path, finished_original: Path) -> None:
    found = facts(report_original)
    known = {f"{run['name']}/{row['name']}" for run in found["runs"] for row in run["stages"]}
    named = {
        source
        for plot in found["figures"].values()
        for panel in plot["panels"]
        for row in panel["series"]
        for source in row["sources"]
    }
    assert named
    assert named <= known
    (select,) = [row for row in found["runs"][0]["stages"] if row["name"] == "iter-002/select"]
    outputs = manifest(finished_original, 2, "select")["outputs"]
    canonical = json.dumps({name: row["sha256"] for name, row in sorted(outputs.items())}, separators=(",", ":"))
    assert select["digest"] == "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
    assert select["manifest"] == "iter-002/select/manifest.json"
    assert select["digest"] in Page(report_original / "index.html").text


def test_inputs_and_outputs_are_the_bytes_on_disk(report_original: Path, finished_original: Path) -> None:
    found = json.loads((report_original / "manifest.json").read_bytes())
    of_finished = {name: digest for name, digest in found["inputs"].items() if name.startswith("finished: ")}
    assert of_finished
    for name, digest in of_finished.items():
        path = finished_original / name.removeprefix("finished: ")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, name
    files = {path.relative_to(report_original).as_posix() for path in report_original.rglob("*") if path.is_file()}
    assert files == {*found["outputs"], "manifest.json"}
    for name, row in found["outputs"].items():
        assert hashlib.sha256((report_original / name).read_bytes()).hexdigest() == row["sha256"], name
