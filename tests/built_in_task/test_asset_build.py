"""The build at a tiny size: every file that ships, the same after an interruption, and nothing twice."""

import json
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from activedpo_cli.base.errors import UsageError
from built_in_task import build as build_module
from built_in_task.build import BuildPlan, build
from built_in_task.corpus import Corpus
from built_in_task.language_model import LanguageModelPlan, newest_whole_checkpoint
from built_in_task.reward_model import RewardModelPlan

pytestmark = pytest.mark.whole

LANGUAGE = LanguageModelPlan(
    vocabulary=300, context=64, width=16, feed_forward=32, layers=2, heads=2, steps=6, batch=2, bf16=False
)


def plan_in(folder: Path) -> BuildPlan:
    text = folder.parent / "stories.txt"
    text.write_text("<|endoftext|>".join(f"One day, a cat named Tom saw {number} birds." for number in range(60)))
    words = folder.parent / "words"
    words.write_text("the\na\nand\nwas\n")
    return BuildPlan(
        work=folder,
        text=(text,),
        dictionary=words,
        language_model=LANGUAGE,
        reward_model=RewardModelPlan(layers=1, steps=4, batch=4),
        reward_prompts=6,
        responses=3,
        measured_prompts=12,
    )


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(plan_in(tmp_path_factory.mktemp("built") / "work"), lambda line: None)


def test_everything_that_ships_is_there_and_loads(built):
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    for name, loader in (
        ("language-model", AutoModelForCausalLM),
        ("reward-model", AutoModelForSequenceClassification),
    ):
        model, report = loader.from_pretrained(built / name, output_loading_info=True)
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert model.dtype == torch.bfloat16
        tokenizer = AutoTokenizer.from_pretrained(built / name)
        assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
        assert model.config.pad_token_id == tokenizer.pad_token_id
        assert tokenizer.decode(tokenizer("A naïve cat.")["input_ids"], skip_special_tokens=True) == "A naïve cat."
    train, held_out = ((built / f"prompts-{split}.txt").read_text().splitlines() for split in ("train", "eval"))
    assert (len(train), len(held_out)) == (1000, 200)
    assert len({*train, *held_out}) == 1200
    assert not list(built.rglob("*.bin"))


def test_the_reward_model_reads_the_end_and_the_language_model_does_not(built):
    from transformers import AutoTokenizer

    writer, judge = (AutoTokenizer.from_pretrained(built / name) for name in ("language-model", "reward-model"))
    assert writer("A cat")["input_ids"] == [writer.bos_token_id, *writer("A cat", add_special_tokens=False).input_ids]
    pair = judge("A cat", " ran.")["input_ids"]
    assert (pair[0], pair[-1]) == (judge.bos_token_id, judge.eos_token_id)


def test_the_card_states_what_was_made(built):
    from safetensors.torch import load_file

    card = (built / "MODEL_CARD.md").read_text()
    parameters = sum(tensor.numel() for tensor in load_file(built / "language-model" / "model.safetensors").values())
    assert f"{parameters:,} parameters" in card
    assert "96 responses to 12 prompts" in card
    assert len(re.findall(r"^\d+\. \*", card, re.MULTILINE)) == 10
    assert "nan" not in card


def test_running_it_again_makes_nothing(built):
    before = {path: path.stat().st_mtime_ns for path in built.parent.rglob("*")}
    said: list[str] = []
    build(plan_in(built.parent), said.append)
    assert [line.partition(": ")[2] for line in said] == ["there already"] * 5
    assert {path: path.stat().st_mtime_ns for path in built.parent.rglob("*")} == before


def test_an_interrupted_build_ends_with_the_same_bytes(built, tmp_path, monkeypatch):
    plan = plan_in(tmp_path / "work")
    honest = Corpus.row

    def interrupted(self, number, context, encode):
        if len(asked) == 9:
            raise KeyboardInterrupt
        asked.append(number)
        return honest(self, number, context, encode)

    asked: list[int] = []
    monkeypatch.setattr(Corpus, "row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(plan, lambda line: None)
    assert not (plan.work / "language-model").exists()
    asked.clear()
    monkeypatch.setattr(Corpus, "row", lambda *arguments: asked.append(arguments[1]) or honest(*arguments))
    monkeypatch.setattr(build_module, "train_reward_model", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(plan, lambda line: None)
    assert 0 < len(asked) < LANGUAGE.steps * LANGUAGE.batch  # it went on at a checkpoint
    monkeypatch.undo()
    build(plan, lambda line: None)
    ours, uninterrupted = contents(plan.work / "assets"), contents(built)
    assert {name for name in uninterrupted if uninterrupted[name] != ours.get(name)} == set()
    assert set(ours) == set(uninterrupted)


def test_a_folder_begun_with_other_options_is_refused(built):
    with pytest.raises(UsageError, match="begun with other options"):
        build(replace(plan_in(built.parent), seed=5), lambda line: None)
    plan = plan_in(built.parent)
    plan.text[0].write_text("Another story.")
    with pytest.raises(UsageError, match="begun with other options"):
        build(plan, lambda line: None)


def test_a_checkpoint_that_was_being_written_is_passed_over(tmp_path):
    for step, is_whole in ((2, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        if is_whole:
            (folder / "trainer_state.json").touch()
    assert newest_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert not (tmp_path / "checkpoint-12").exists()
    assert newest_whole_checkpoint(tmp_path / "nothing") is None


def test_the_reward_model_never_learns_from_a_prompt_that_ships(tmp_path, monkeypatch):
    honest = build_module.draw_prompts
    first = honest(1200, Random("0 prompts"))[:3]
    monkeypatch.setattr(build_module, "draw_prompts", lambda n, random: honest(n, random) + (first if n < 1000 else []))
    monkeypatch.setattr(build_module, "train_reward_model", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # it has drawn what it would learn from
        build(plan_in(tmp_path / "work"), lambda line: None)
    learnt = json.loads((tmp_path / "work" / "responses" / "responses.json").read_text())
    assert len(learnt) == 6
    assert not set(learnt) & set(first)


def test_another_seed_makes_other_files(built, tmp_path):
    other = build(replace(plan_in(tmp_path / "work"), seed=1), lambda line: None)
    ours, theirs = contents(other), contents(built)
    names = {"prompts-train.txt", "language-model/model.safetensors", "reward-model/model.safetensors"}
    assert all(ours[name] != theirs[name] for name in names)
    assert json.loads(ours["language-model/config.json"]) == json.loads(theirs["language-model/config.json"])
