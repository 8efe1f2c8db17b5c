"""`activedpo bench select` from the outside, and what it compares with."""

import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import done, refused

from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.bench import select_streamed
from activedpo_cli.bench.select import inverse_design, sherman_morrison, textbook
from activedpo_cli.bench.select_streamed import StreamedPlan, measure_streamed

KEYS = {
    "n", "d", "budget", "seconds", "ratio_to_sherman_morrison", "ratio_to_textbook", "same_picks", "peak_memory_bytes",
}  # fmt: skip
SMALL = (
    *("--pairs", 60, "--proj-dim", 16, "--budget", 8, "--labelled", 5, "--repeats", 1),
    *("--streamed-pairs", 3000, "--streamed-proj-dim", 16, "--memory", 0.0001),
)


def bench(*words: object) -> tuple[object, ...]:
    return ("bench", "select", *SMALL, *words)


@pytest.mark.whole
def test_json_has_both_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = done(*bench("--json"))
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert set(found) >= KEYS
    assert set(found["streamed"]) >= KEYS | {"passes"}
    assert (found["n"], found["d"], found["budget"]) == (60, 16, 8)
    assert (found["streamed"]["n"], found["streamed"]["file_bytes"]) == (3000, 3000 * 16 * 2)
    for numbers in (found, found["streamed"]):
        assert numbers["same_picks"] is True
        assert min(numbers[key] for key in KEYS - {"same_picks"}) > 0
    assert found["ratio_to_product"] == pytest.approx(found["all_seconds"][0] / found["all_product_seconds"][0])
    assert 1 <= found["streamed"]["passes"] <= 8
    assert not list(tmp_path.glob("activedpo-*")), "the file goes away"


def test_text_is_a_table_with_its_conditions() -> None:
    text = done(*bench("--no-streamed", "--quiet")).stdout
    assert re.search(r"^in memory +60 +16 +\d+\.\d\d .* yes ", text, re.M)
    assert "streamed" not in text
    assert "2 timed, V⁻¹ not counted" in text
    assert re.search(r"a choice takes \d+\.\d\d × one product of all pairs with the labelled ones in float64", text)
    assert "one product" not in done(*bench("--no-streamed", "--quiet", "--labelled", 0)).stdout


def test_wrong_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--ridge" in refused(4, *bench("--ridge", 0))
    assert "--budget 61" in refused(2, *bench("--budget", 61))
    monkeypatch.setattr(select_streamed.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "--no-streamed" in refused(1, *bench())


def test_baselines_agree_with_each_other() -> None:
    features = torch.randn(50, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labelled = features[40:]
    rows, inverse = sherman_morrison(features, labelled, 0.1, 10)
    assert rows == textbook(features, labelled, 0.1, 10)
    design = 0.1 * torch.eye(20, dtype=torch.float64) + labelled.T @ labelled
    torch.testing.assert_close(inverse_design(labelled, 0.1), torch.linalg.inv(design))
    torch.testing.assert_close(inverse, torch.linalg.inv(design + features[rows].T @ features[rows]))


@pytest.mark.whole
def test_wrong_picks_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = StreamedPlan(pairs=400, proj_dim=8, budget=5, labelled=3, ridge=0.1, memory=10**4, seed=0)
    assert measure_streamed(plan, SilentProgress()).same_picks
    run = select_streamed.subprocess.run

    def with_another_pick(*words: Any, **options: Any) -> Any:
        ended = run(*words, **options)
        measured = json.loads(ended.stdout)
        measured["rows"][3] = (measured["rows"][3] + 1) % 400
        return SimpleNamespace(returncode=0, stdout=json.dumps(measured))

    monkeypatch.setattr(select_streamed.subprocess, "run", with_another_pick)
    assert not measure_streamed(plan, SilentProgress()).same_picks
