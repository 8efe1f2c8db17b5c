"""What docs/python.md tells a reader to type works as it is typed."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import activedpo_cli

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text(encoding="utf-8")
SMALLER = {"ITERATIONS, BUDGET, EACH, TOKENS = 2, 12, 3, 32": "ITERATIONS, BUDGET, EACH, TOKENS = 2, 2, 2, 8"} | {
    "splitlines()[:24]": "splitlines()[:3]",
    "num_train_epochs=4": "num_train_epochs=1",
}
"""What makes the loop quick."""


def typed(section: str) -> str:
    """The code of a section, as one script."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def run_script(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "notebook"}
    with torch.random.fork_rng(devices=[]):
        exec(compile(code, "docs/python.md", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_features() -> None:
    names = run_script(typed("Features"))
    assert len(names["best_first"]) == 2
    assert all(row in names["rows"] for row in names["best_first"])
    assert names["features"].columns["features"].shape == (6, 1024)


def test_the_loop_in_small(tmp_path: Path) -> None:
    code = typed("A loop with TRL")
    for written, smaller in SMALLER.items():
        assert written in code
        code = code.replace(written, smaller)
    names = run_script(code)
    assert len(names["bought"]) == 4
    assert len(names["measured"]) == 3
    assert list(names["policy"].peft_config) == ["default"], "the reference is the one that was given"
    assert (tmp_path / "dpo/adapter/adapter_model.safetensors").is_file()


@pytest.mark.whole
def test_the_loop_as_it_is_typed_helps() -> None:
    measured = run_script(typed("A loop with TRL"))["measured"]
    assert measured[-1] > measured[0] + 0.02


def test_a_run(finished_original: Path) -> None:
    code = typed("A run as tables").replace("runs/default", str(finished_original))
    assert run_script(code)["run"].iterations == (1, 2)


def test_every_name_is_on_the_page() -> None:
    for name in activedpo_cli.__all__:
        assert re.search(rf"`{name}\b", PAGE), name
