"""What the first pages tell a reader to type about a model of their own works as it is typed."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import done

PAGE = (Path(__file__).parent.parent / "docs/tutorial/your-model.md").read_text(encoding="utf-8")
SMALLER = ("--num-prompts", 6, "--eval-prompts", 4, "--max-new-tokens", 4, "--budget", 3, "--iterations", 1)
"""Given after the recipe's own numbers, of which the last count."""


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_own_model_prompts_and_scorer(
    tmp_path: Path, small_model: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = section("Your own model, prompts and scorer")
    words = shlex.split(blocks(recipe, "bash")[0].replace("\\\n", ""))
    shutil.copytree(small_model, tmp_path / "my-model")
    shutil.copy(prompts_file, tmp_path / "prompts.jsonl")
    (tmp_path / "my_scorer.py").write_text(blocks(recipe, "python")[0])
    monkeypatch.chdir(tmp_path)
    assert words[:2] == ["activedpo", "run"]
    said = done(*words[1:], *SMALLER, "--no-report").stdout
    headings = blocks(recipe, "text")[0].split()[:4]
    assert re.search(r"\s+".join(headings), said)
    assert (tmp_path / "runs/mine/iter-001/train/adapter").is_dir()


def test_the_recipe_asks_for_as_many_prompts_as_it_needs() -> None:
    recipe = section("Your own model, prompts and scorer")
    needed = sum(int(re.search(rf"--{name} (\d+)", recipe)[1]) for name in ("num-prompts", "eval-prompts"))
    assert f"each of {needed} prompts or more" in recipe
