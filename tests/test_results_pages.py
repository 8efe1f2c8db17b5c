"""The numbers on the pages are those of the result files, and these agree among themselves."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from activedpo_cli.artifacts.manifest import digest_of
from activedpo_cli.experiments.report import summarise
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


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_summary_is_that_of_its_rows(folder: Path) -> None:
    rows = [row_of(json.loads(line)) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    spec = ExperimentSpec.model_validate(json.loads((folder / "experiment.json").read_text(encoding="utf-8")))
    kept = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    found = json.loads(json.dumps(summarise(rows, spec)))
    assert found["evaluations_digest"] == kept["evaluations_digest"]
    assert found["evaluations_digest"] == digest_of([[row.arm, row.seed, row.iteration, row.digest] for row in rows])
    assert found["seeds"] == kept["seeds"]
    for measure, curves in kept["measures"].items():
        for ours, theirs in zip(found["measures"][measure], curves, strict=True):
            assert ours["height"] == pytest.approx(theirs["height"], rel=1e-12)
            assert ours["arm"] == theirs["arm"]


def test_seeds_for_choosing_are_not_those_reported() -> None:
    """What was chosen on some seeds is reported on others: every experiment that chooses says so in its name."""
    seeds = {
        folder.name: set(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["seeds"].popitem()[1])
        for folder in FOLDERS
    }
    choosing = {name: found for name, found in seeds.items() if name.endswith(("-development", "learning-rate"))}
    for name, found in choosing.items():
        for other, reported in seeds.items():
            if other not in choosing:
                assert not found & reported, f"{name} and {other} share seeds"
