"""A report about responses made elsewhere: scores of all candidates are known, and nothing scores new text."""

import json
import shutil
import statistics
from itertools import combinations
from pathlib import Path

import pytest
from command_line import RULE, done, manifest, on, rows
from report_page import Page, draw_quickly, facts, panels, series
from small_runs import SMALL

SCORES = [[0.5, 2.0, 7.5], [1.0, 1.5, 4.0], [9.0, 3.0, 3.5], [2.5, 8.0, 0.0], [6.0, 1.0, 2.0], [0.0, 0.25, 5.0]]


@pytest.fixture(scope="module")
def pool_run(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """One iteration over the three scored responses to each of four prompts; two prompts are held out."""
    folder = tmp_path_factory.mktemp("pool")
    lines = [
        {
            "prompt": f"Question {p}",
            "responses": [{"text": f"answer {p} {'so ' * i}", "rm": s} for i, s in enumerate(row)],
        }
        for p, row in enumerate(SCORES)
    ]
    path = folder / "pool.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    small = {key: value for key, value in SMALL.items() if not key.startswith(("generate.", "label."))}
    assignments = [word for key, value in small.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    run = folder / "pool-run"
    done(*on(run, "init"), "--model", small_model, "--prompts", path, "--eval-prompts", 2, *assignments)
    source = ("--responses", path, "--oracle", "recorded", "--score-field", "rm", "--eval-score-field", "rm")
    done(*on(run, "run"), "--iterations", 1, "--num-prompts", 4, *source, "--no-report", "--quiet")
    return run


@pytest.fixture
def report(pool_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pool run beside a copy in which another method picked."""
    draw_quickly(monkeypatch)
    other = Path(shutil.copytree(pool_run, tmp_path / "other"))
    done(*on(other, "select", iteration=1), "--method", "random", "--force")
    done("report", pool_run, other, "--output", tmp_path / "page")
    return tmp_path / "page"


def test_score_gaps_of_all_candidates(pool_run: Path, report: Path) -> None:
    drawn = json.loads((pool_run / "iter-001" / "generate" / "prompts.json").read_bytes())["prompt_ids"]
    stored = [row for row in rows(pool_run / "pool" / "responses.jsonl") if row["prompt_id"] in drawn]
    pairs = [(a, b) for a, b in combinations(stored, 2) if a["prompt_id"] == b["prompt_id"]]
    assert len(pairs) == 12
    gaps = [abs(a["scores"]["rm"] - b["scores"]["rm"]) for a, b in pairs]
    found = series(report, "score-gap")["candidates"]
    quartiles = statistics.quantiles(gaps, n=4, method="inclusive")
    assert [found[part][0] for part in ("lower_quartile", "y", "upper_quartile")] == quartiles


def test_candidates_have_no_gaps_by_an_oracle_that_reads_no_scores(
    pool_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting that names the scores stays, but another judge answered, in a unit of its own."""
    draw_quickly(monkeypatch)
    other = Path(shutil.copytree(pool_run, tmp_path / "judged"))
    done(*on(other, "label", iteration=1), "--oracle", RULE, "--force")
    assert manifest(other, 1, "label")["settings"]["label.score_field"] == "rm"
    done("report", other, "--output", tmp_path / "page")
    assert list(series(tmp_path / "page", "score-gap")) == ["labelled pairs"]


def test_accuracy_stands_where_rewards_can_not(pool_run: Path, report: Path) -> None:
    metrics = json.loads((pool_run / "iter-001" / "evaluate" / "metrics.json").read_bytes())
    (panel,) = panels(report, "preference-accuracy")
    assert panel["series"][0]["y"] == [metrics["preference_accuracy"]]
    assert panel["level"] == 0.5
    assert "reward" not in facts(report)["figures"]
    assert f"preference accuracy {100 * metrics['preference_accuracy']:.1f} %" in Page(report / "index.html").text


def test_choices_from_one_pool_compare(pool_run: Path, report: Path) -> None:
    (found,) = facts(report)["overlaps"]
    assert (found["candidates"], found["runs"]) == (12, ["pool-run", "other"])
    assert found["by_chance"] == pytest.approx(4 / 12)
    ours, theirs = (set(run["batches"][0]["picked"]) for run in facts(report)["runs"])
    assert found["in_both"] == len(ours & theirs)
