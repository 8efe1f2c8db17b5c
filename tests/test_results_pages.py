"""The numbers on the pages are those of the result files, and these agree among themselves."""

import importlib.util
import json
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
def collect() -> ModuleType:
    spec = importlib.util.spec_from_file_location("collect_results", DOCS / "experiments" / "collect.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_on_a_page_is_that_of_its_results(collect: ModuleType) -> None:
    blocks = 0
    for path in collect.pages():
        page = path.read_text(encoding="utf-8")
        blocks += len(collect.BLOCK.findall(page))
        assert collect.filled(page) == page, f"python docs/experiments/collect.py writes {path.name} anew"
        assert page.count("<!-- results ") == page.count("<!-- end of results -->")
    assert blocks or not FOLDERS


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
