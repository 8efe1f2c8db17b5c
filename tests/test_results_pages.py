"""The numbers on the pages are those of the result files, and these agree among themselves."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from activedpo_cli.experiments.report import analysis_of, summarise
from activedpo_cli.experiments.results import row_of
from activedpo_cli.experiments.spec import ExperimentSpec

DOCS = Path(__file__).parents[1] / "docs"
FOLDERS = sorted(path.parent for path in (DOCS / "results").glob("*/results.jsonl"))


@pytest.fixture(scope="module")
def collect() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("collect_results", DOCS / "experiments" / "collect.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(spec.origin and Path(spec.origin).parent)
        spec.loader.exec_module(module)
        yield module


def test_every_table_on_a_page_is_that_of_its_results(collect: ModuleType) -> None:
    blocks = 0
    for path in collect.pages():
        page = path.read_text(encoding="utf-8")
        blocks += len(collect.BLOCK.findall(page))
        assert collect.filled(page) == page, f"python docs/experiments/collect.py writes {path.name} anew"
        assert page.count("<!-- results ") == page.count("<!-- end of results -->")
    assert blocks or not FOLDERS


def test_the_package_has_the_evidence_of_the_results(collect: ModuleType) -> None:
    kept = json.loads(collect.EVIDENCE.read_text(encoding="utf-8"))
    assert json.loads(collect.evidence()) == kept, "python docs/experiments/collect.py writes it anew"


def test_the_evidence_is_that_of_the_summaries(collect: ModuleType) -> None:
    """Each finding has the numbers that its experiment's own report has, and its verdict follows from these."""
    words = {True: ("yes", "below"), False: ("perhaps", "perhaps below")}
    found = json.loads(collect.EVIDENCE.read_text(encoding="utf-8"))["found"]
    assert {entry["experiment"] for entry in found} <= {folder.name for folder in FOLDERS}
    for entry in found:
        summary = json.loads((DOCS / "results" / entry["experiment"] / "summary.json").read_text(encoding="utf-8"))
        curves = next(iter(summary["measures"].values()))
        curve = next(one for one in curves if told_as(one, entry))
        mean, low, high = entry["difference"]
        p_value = entry["p"] if entry["p_holm"] is None else entry["p_holm"]
        is_told = not low <= 0 <= high
        assert entry["verdict"] == (words[p_value < 0.05][mean < 0] if is_told else "no sign")
        assert entry["seeds"] == len(curve["seeds"])
        if entry["share"]:
            assert entry["share"][0] == pytest.approx(curve["share"][0], rel=1e-5)


def told_as(curve: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether a curve of a summary is the one whose difference a finding has."""
    difference = curve["height_difference"]
    return difference is not None and difference["interval"] == pytest.approx(entry["difference"], rel=1e-5)


def close_to(value: Any) -> Any:
    """The value but for rounding."""
    is_missing = value is None or (isinstance(value, list) and None in value)
    return value if is_missing else pytest.approx(value, rel=1e-9)


CHOSEN_BY = {"smaller-rate": "steps"}
"""Experiments with the one that their settings come from, which is reported too."""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_summary_is_that_of_its_rows(folder: Path) -> None:
    rows = [row_of(json.loads(line)) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    spec = ExperimentSpec.model_validate(json.loads((folder / "experiment.json").read_text(encoding="utf-8")))
    kept = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    found = json.loads(json.dumps(summarise(analysis_of(rows, spec))))
    assert found["evaluations_digest"] == kept["evaluations_digest"]
    assert found["seeds"] == kept["seeds"]
    for measure, arms in kept["at_equal_kl"].items():
        assert found["at_equal_kl"][measure].keys() == arms.keys()
        for arm, entry in arms.items():
            assert found["at_equal_kl"][measure][arm]["difference"]["interval"] == close_to(
                entry["difference"]["interval"]
            )
    for measure, curves in kept["measures"].items():
        for ours, theirs in zip(found["measures"][measure], curves, strict=True):
            assert ours["arm"] == theirs["arm"]
            for name in ("height", "share"):
                assert ours[name] == close_to(theirs[name])
            mine, kept_one = ours["height_difference"] or {}, theirs["height_difference"] or {}
            assert mine.keys() == kept_one.keys()
            assert all(mine[name] == close_to(value) for name, value in kept_one.items())


def test_seeds_for_choosing_are_not_those_reported() -> None:
    """What was chosen on some seeds is reported on others: an experiment that chooses is named so, or in CHOSEN_BY."""
    seeds, tasks = {}, {}
    for folder in FOLDERS:
        by_arm = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["seeds"]
        seeds[folder.name] = {seed for found in by_arm.values() for seed in found}
        settings = json.loads((folder / "experiment.json").read_text(encoding="utf-8"))["settings"]
        tasks[folder.name] = settings.get("prompts.source")
    choosing = {name for name in seeds if name.endswith(("-development", "learning-rate"))}
    pairs = [(a, b) for a in choosing for b in seeds.keys() - choosing if tasks[a] == tasks[b]]
    assert pairs or not choosing
    pairs += [(chosen, reported) for reported, chosen in CHOSEN_BY.items()]
    for chosen, reported in pairs:
        assert not seeds[chosen] & seeds[reported], f"{chosen} and {reported} share seeds"
