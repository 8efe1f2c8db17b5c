"""When a report is made, what it is made from, and what it leaves alone."""

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import done, make_partial, on, refused, rows, snapshot, without
from report_page import Page, draw_quickly, facts, panels, series

from activedpo_cli import reports
from activedpo_cli.reports.build import build_report
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.run import Run


def files(folder: Path) -> dict[str, bytes]:
    """All files of a report, without the record of when and where they were made."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_bytes())


def change_json(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changed))


def text(run: Path) -> str:
    return Page(run / "report" / "index.html").text


@pytest.fixture(autouse=True)
def _quick_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn_report" not in request.fixturenames:
        draw_quickly(monkeypatch)


@pytest.mark.whole
def test_equal_runs_give_equal_bytes(finished: Path, random_original: Path, drawn_report: Path, tmp_path: Path) -> None:
    """Copies at another place, with figures drawn again; nothing of a run itself changes."""
    moved = Path(shutil.copytree(random_original, tmp_path / "elsewhere" / random_original.name))
    before = snapshot(finished)
    build_report([Run.open(finished), Run.open(moved)])
    assert files(finished / "report-by-chance") == files(drawn_report)
    assert without(snapshot(finished), "report-by-chance/") == before


def test_its_sentences_are_no_markdown(finished: Path, random_original: Path) -> None:
    build_report([Run.open(finished), Run.open(random_original)], finished / "both")
    document = (finished / "both" / "index.html").read_text(encoding="utf-8")
    assert "report.json beside this page" in document
    assert "`" not in re.sub(r"<pre>.*?</pre>", "", document, flags=re.DOTALL)


def test_made_again_it_is_the_same(finished: Path) -> None:
    first = build_report([Run.open(finished)])
    made = files(finished / "report")
    assert first.made
    assert build_report([Run.open(finished)], force=True).made
    assert files(finished / "report") == made


def test_the_result_names_page_and_figures(finished: Path) -> None:
    result = build_report([Run.open(finished)])
    assert result.page == finished / "report" / "index.html"
    assert result.figures["reward"].read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in result.figures.values()} == {p.name for p in (finished / "report").rglob("*.png")}
    again = build_report([Run.open(finished)])
    assert (again.made, again.page, again.figures) == (False, result.page, result.figures)
    assert again.summaries == result.summaries


def test_a_new_evaluation_makes_it_stale(finished: Path, tmp_path: Path) -> None:
    shutil.move(finished / "iter-002" / "evaluate", tmp_path / "evaluate")
    assert build_report([Run.open(finished)]).made
    assert series(finished / "report", "reward")["finished"]["x"] == [0, 4]
    assert not build_report([Run.open(finished)]).made
    shutil.move(tmp_path / "evaluate", finished / "iter-002" / "evaluate")
    assert build_report([Run.open(finished)]).made
    assert series(finished / "report", "reward")["finished"]["x"] == [0, 4, 8]


@pytest.mark.parametrize("lost", ["index.html", "figures/reward.svg", "report.json"])
def test_a_damaged_report_is_made_again(finished: Path, lost: str) -> None:
    build_report([Run.open(finished)])
    made = files(finished / "report")
    (finished / "report" / lost).write_text("{")
    assert build_report([Run.open(finished)]).made
    assert files(finished / "report") == made


def test_it_shows_what_there_is_and_names_what_is_missing(finished: Path) -> None:
    """The second iteration stops in the middle of its labels; nobody evaluated."""
    make_partial(finished, 2, "label", "outcomes.jsonl", "preferences.jsonl")
    for name in ("train", "evaluate"):
        shutil.rmtree(finished / "iter-002" / name)
    shutil.rmtree(finished / "iter-001" / "evaluate")
    shutil.rmtree(finished / "reference" / "evaluate")
    build_report([Run.open(finished)])
    assert "iter-001/evaluate, iter-002/label, iter-002/train, iter-002/evaluate not finished" in text(finished)
    assert "4 labels spent, no policy evaluated" in text(finished)
    found = facts(finished / "report")
    assert "reward" not in found["figures"]
    assert [len(panel["series"]) for panel in found["figures"]["score-decay"]["panels"]] == [2]
    assert [row["iteration"] for row in found["runs"][0]["labels"]] == [1]


def test_without_a_scorer_there_are_no_rewards(finished: Path) -> None:
    for path in finished.rglob("metrics.json"):
        metrics = json.loads(path.read_bytes())
        gone = {key: None for key in metrics if "reward" in key or "win_rate" in key or "scorer" in key}
        change_json(path, **gone)
    build_report([Run.open(finished)])
    found = facts(finished / "report")["figures"]
    assert "reward" not in found
    assert "win-rate" not in found
    assert "distance" in found
    assert "Nobody scored" in text(finished)
    assert "After 8 labels nobody scored the policy" in text(finished)


def test_scorers_do_not_share_axes(finished: Path) -> None:
    """The second evaluation had another judge; the initial model's own record is by that one."""
    changed = {"scorer": "python:other:score", "reward_mean": 5.5, "reward_mean_initial": 4.5}
    change_json(finished / "iter-002" / "evaluate" / "metrics.json", **changed)
    change_json(finished / "reference" / "evaluate" / "metrics.json", scorer="python:other:score", reward_mean=4.5)
    build_report([Run.open(finished)])
    second, first = sorted(
        panels(finished / "report", "reward"), key=lambda panel: panel["title"] != "by python:other:score"
    )
    initial = json.loads((finished / "iter-001" / "evaluate" / "metrics.json").read_bytes())["reward_mean_initial"]
    assert first["series"][0]["x"] == [0, 4]
    assert first["series"][0]["y"][0] == initial
    assert first["series"][0]["low"][0] is None  # its interval was by the other judge
    assert second["title"] == "by python:other:score"
    assert (second["series"][0]["x"], second["series"][0]["y"]) == ([0, 8], [4.5, 5.5])
    assert "Rewards by different scorers do not compare" in text(finished)


def test_a_second_scorer_has_a_panel(finished: Path) -> None:
    for place, path in enumerate(sorted(finished.rglob("metrics.json"))):
        metrics = json.loads(path.read_bytes())
        ends = {"second_reward_ci_low": place - 0.5, "second_reward_ci_high": place + 0.5, "second_win_rate": 0.25}
        metrics |= ends | {"second_reward_mean": place, "second_reward_mean_initial": 2, "second_scorer": "judge"}
        path.write_text(json.dumps(metrics))
    build_report([Run.open(finished)])
    first, second = panels(finished / "report", "reward")
    assert second["title"] == "by judge"
    assert (second["series"][0]["x"], second["series"][0]["y"]) == ([0, 4, 8], [2, 0, 1])
    assert first["series"][0]["y"] != second["series"][0]["y"]


def test_features_that_were_deleted_are_missed_and_named(finished: Path) -> None:
    for path in (finished / "iter-001" / "featurize").glob("features-*"):
        path.unlink()
    build_report([Run.open(finished)])
    assert series(finished / "report", "similarity")["picked"]["x"] == [2]
    assert "for finished iteration 1: the feature files were deleted" in text(finished)


def test_a_run_without_features_says_so(random_original: Path, tmp_path: Path) -> None:
    build_report([Run.open(random_original)], tmp_path / "page")
    found = facts(tmp_path / "page")["figures"]
    assert not {"similarity", "effective-rank", "score-decay"} & found.keys()
    assert "lengths" in found
    page = Page(tmp_path / "page" / "index.html").text
    assert "effective rank for by-chance: the method needs no features and none were computed" in page
    assert "No scores for by-chance" in page


def test_what_was_made_from_other_inputs_is_named(finished: Path) -> None:
    """Responses sampled anew stand under the old ids, so nothing about them is mixed with the old selection."""
    done(*on(finished, "generate", iteration=1), "--temperature", "0.7", "--force")
    build_report([Run.open(finished)])
    assert "finished/iter-001/select was made from another iter-001/generate" in text(finished)
    assert series(finished / "report", "lengths")["picked"]["x"] == [2]
    done(*on(finished, "featurize", iteration=1), "--force")
    build_report([Run.open(finished)])
    batch = facts(finished / "report")["runs"][0]["batches"][0]
    assert (batch["candidates_digest"], batch["geometry"]) == (None, None)
    assert "for finished iteration 1: featurize was deleted or made anew since" in text(finished)


def test_answers_about_other_responses_are_not_mixed_with_the_new_ones(finished: Path) -> None:
    """Up to the selection iteration 1 is made anew, under the same ids; its labels are still those of before."""
    done("report", finished)
    assert facts(finished / "report")["runs"][0]["labels"][0]["unequal_pairs"] > 0
    done(*on(finished, "generate", iteration=1), "--temperature", "0.7", "--force")
    for stage in ("featurize", "select"):
        done(*on(finished, stage, iteration=1), "--force")
    done("report", finished)
    run = facts(finished / "report")["runs"][0]
    assert run["batches"][0]["picked_tokens"] is not None
    first, second = run["labels"]
    assert (first["unequal_pairs"], first["longer_won"]) == (0, None)
    answers = rows(finished / "iter-001" / "label" / "outcomes.jsonl")
    assert first["counts"]["chosen"] == sum(row["outcome"] == "chosen" for row in answers)
    assert second["unequal_pairs"] > 0


def test_a_stage_that_has_begun_makes_it_stale(finished: Path) -> None:
    build_report([Run.open(finished)])
    shutil.copytree(finished / "iter-002" / "generate", finished / "iter-003" / "generate")
    make_partial(finished, 3, "generate")
    assert build_report([Run.open(finished)]).made
    assert "iter-003/generate" in text(finished)
    assert record(finished / "report")["inputs"]["finished: iter-003/generate"] == "not finished"
    assert not build_report([Run.open(finished)]).made


def test_settings_that_differ_are_shown(report_original: Path) -> None:
    found = {row[0]: row[1:] for row in Page(report_original / "index.html").rows if row}
    assert found["select.method"] == ['"activedpo"', '"random"']
    assert found["featurize.compute"] == ['["features"]', "[]"]
    assert "generate.temperature" not in found


def test_every_figure_is_described(report_original: Path) -> None:
    """Figures that these runs lack are found in the code that makes them."""
    package = Path(reports.__file__).parent
    names = {
        str(word.value.value)
        for path in package.glob("*.py")
        if path.name != "comparison.py"
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Plot"
        for word in call.keywords
        if word.arg == "name" and isinstance(word.value, ast.Constant)
    }
    assert {path.stem for path in (report_original / "figures").iterdir()} <= names
    assert {"seeds", "seed-differences"} <= names
    document = (Path(__file__).parents[2] / "docs" / "artifacts.md").read_text(encoding="utf-8")
    described = document.partition("**`figures/NAME.svg`**")[2].partition("- **`report.json`**")[0]
    assert set(re.findall(r"`([a-z-]+)`", described)) == names


def test_runs_of_one_name_are_told_apart(finished: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished, tmp_path / "other" / "finished"))
    build_report([Run.open(finished), Run.open(other)], tmp_path / "page")
    names = [f"{tmp_path.name}/finished", "other/finished"]
    assert list(series(tmp_path / "page", "reward")) == names
    assert [row["in_both"] for row in facts(tmp_path / "page")["overlaps"]] == [4, 4]


def test_runs_measured_on_other_prompts_do_not_compare_exactly(finished: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished, tmp_path / "other"))
    change_json(other / "run.json", prompts_digest="sha256:else", fixed={"seed": 7})
    build_report([Run.open(finished), Run.open(other)], tmp_path / "page")
    page = Page(tmp_path / "page" / "index.html").text
    assert "different held-out prompts" in page
    assert "every run here has its own seed" in page
    assert "all of this is one seed" not in page
    third = Path(shutil.copytree(other, tmp_path / "third"))
    build_report([Run.open(path) for path in (finished, other, third)], tmp_path / "three")
    page = Page(tmp_path / "three" / "index.html").text
    assert "the runs have 2 seeds" in page
    assert "its own seed" not in page
    assert "all of this is one seed" in Page(build_report([Run.open(finished)]).page).text


def test_runs_of_two_seeds_have_figures_over_seeds(finished: Path, random_original: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished, tmp_path / "other"))
    change_json(other / "run.json", fixed=json.loads((other / "run.json").read_bytes())["fixed"] | {"seed": 7})
    for path in other.rglob("manifest.json"):
        record = json.loads(path.read_bytes())
        change_json(path, settings=record["settings"] | ({"seed": 7} if "seed" in record["settings"] else {}))
    build_report([Run.open(path) for path in (finished, random_original, other)], tmp_path / "page")
    (found,) = series(tmp_path / "page", "seeds").values()
    single = series(tmp_path / "page", "reward")["finished"]
    assert found["label"] == "activedpo (2 seeds)"
    assert (found["x"], found["y"]) == ([0, 4, 8], pytest.approx(single["y"]))
    assert "it was never evaluated: by-chance." in Page(tmp_path / "page" / "index.html").text


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_folder_of_other_things_is_never_replaced(finished: Path, force: tuple) -> None:
    before = snapshot(finished)
    assert "config.yaml" in refused(3, "report", finished, "--output", finished, *force)
    assert "selection.jsonl" in refused(3, "report", finished, "--output", finished / "iter-001" / "select", *force)
    assert without(snapshot(finished), "report/") == before
    done("report", finished)
    notes = finished / "report" / "notes.txt"
    notes.write_text("mine")
    assert "notes.txt" in refused(3, "report", finished, "--force")
    assert notes.read_text() == "mine"


def test_a_second_process_does_not_wait(finished: Path) -> None:
    with exclusive(finished / ".locks" / "report.lock", "report"):
        assert "another process" in refused(75, "report", finished)


def test_a_damaged_file_is_named(finished: Path) -> None:
    (finished / "iter-002" / "select" / "selection.jsonl").write_text('{"rank": 1}\n')
    assert "selection.jsonl` line 1" in refused(4, "report", finished)
    assert not (finished / "report").exists()


def test_answers_of_people_have_times(finished: Path) -> None:
    for name in ("label", "train", "evaluate"):
        shutil.rmtree(finished / "iter-002" / name)
    done(*on(finished, "label", iteration=2), "--oracle", "human", typed="1\nt\nb\ns\n")
    build_report([Run.open(finished)])
    times = [row["label"]["seconds"] for row in rows(finished / "iter-002" / "label" / "labels.jsonl")]
    (panel,) = panels(finished / "report", "label-seconds")
    (boxes,) = panel["series"]
    assert boxes["x"] == [2]
    assert min(times) <= boxes["low"][0] <= boxes["y"][0] <= boxes["high"][0] <= max(times)
    found = facts(finished / "report")["runs"][0]["labels"][1]
    assert found["counts"] == {"chosen": 1, "tie": 1, "both_bad": 1, "skip": 1}
    assert (found["labels_spent"], found["timed_answers"], found["gaps"]) == (3, 4, None)
