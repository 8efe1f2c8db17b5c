"""The tiny task is the same everywhere, and its rule can tell random responses apart."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.errors import UsageError
from activedpo_cli.presets import available_presets, read_preset
from activedpo_cli.prompts import tiny as tiny_prompts
from activedpo_cli.settings import Config, PromptSettings
from activedpo_cli.tiny.model import CHARACTERS, build_tiny_model
from activedpo_cli.tiny.rule import score


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_model(folder, seed=7)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_equal_seeds_give_equal_bytes_in_any_process(tiny_folder, tmp_path):
    command = (
        "import sys, pathlib, torch; from activedpo_cli.tiny.model import build_tiny_model;"
        "torch.manual_seed(99); build_tiny_model(pathlib.Path(sys.argv[1]), 7)"
    )
    again = tmp_path / "again"
    environment = {**os.environ, "PYTHONHASHSEED": "3"}
    subprocess.run([sys.executable, "-c", command, str(again)], check=True, env=environment, timeout=60)
    assert contents(again) == contents(tiny_folder)
    build_tiny_model(tmp_path / "other", seed=8)
    differing = {name for name, raw in contents(tmp_path / "other").items() if raw != contents(tiny_folder)[name]}
    assert differing == {"model.safetensors"}


def test_building_leaves_the_global_random_state_alone(tmp_path):
    torch = pytest.importorskip("torch")
    before = torch.get_rng_state()
    build_tiny_model(tmp_path / "tiny", seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_the_folder_loads_whole(tiny_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, report = AutoModelForCausalLM.from_pretrained(tiny_folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert 100_000 <= model.num_parameters() <= 300_000
    assert model.config.max_position_embeddings == 256
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.chat_template is None
    assert len(tokenizer) == model.config.vocab_size


@given(text=st.text(CHARACTERS, max_size=40))
def test_text_survives_the_tokenizer(tiny_tokenizer, text):
    token_ids = tiny_tokenizer(text)["input_ids"]
    assert token_ids[0] == tiny_tokenizer.bos_token_id
    assert len(token_ids) == len(text) + 1
    assert tiny_tokenizer.decode(token_ids, skip_special_tokens=True) == text


@pytest.fixture(scope="module")
def tiny_tokenizer(tiny_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_folder)


def test_foreign_characters_are_unknown_not_lost(tiny_tokenizer):
    assert tiny_tokenizer("aé\U0001f600b")["input_ids"][2:4] == [tiny_tokenizer.unk_token_id] * 2


def test_random_responses_differ_in_score(tiny_folder, tiny_tokenizer):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    prompts = [item.prompt for item in tiny_prompts.read(PromptSettings())][::10]
    batch = tiny_tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sampled = model.generate(
            **batch, do_sample=True, top_k=0, top_p=1.0, max_new_tokens=24, num_return_sequences=3, use_cache=True
        )
    responses = tiny_tokenizer.batch_decode(sampled[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    scores = torch.tensor(score([None] * len(responses), responses)).view(len(prompts), 3)
    assert scores.std(dim=1).mean() > 0.03
    assert (scores[:, 0] == scores[:, 1]).float().mean() < 0.15
    assert 0.05 < scores.mean() < 0.5  # far from the rule's best, 1: there is something to learn


def test_the_rule_by_hand():
    assert score([""] * 5, ["a e", "", "XY1!", "bcA ", "hello"]) == [1.0, 0.0, 0.0, 0.5, 0.7]
    with pytest.raises(ValueError, match="1 prompts do not fit 2 responses"):
        score([""], ["a", "b"])


@given(st.text())
def test_the_rule_is_bounded(text):
    assert 0 <= score(["p"], [text])[0] <= 1


def test_presets_are_valid_settings():
    assert set(available_presets()) >= {"paper", "tiny"}
    assert all(available_presets().values())
    assert Config.model_validate(read_preset("paper")) == Config()
    tiny = Config.model_validate(read_preset("tiny"))
    assert (tiny.model.name, tiny.prompts.source, tiny.label.oracle) == (
        "tiny",
        "tiny",
        "python:activedpo_cli.tiny.rule:score",
    )
    prompts = len(list(tiny_prompts.read(tiny.prompts)))
    assert prompts - tiny.prompts.eval_prompts >= 5 * tiny.generate.num_prompts


def test_an_unknown_preset_suggests_the_nearest():
    with pytest.raises(UsageError, match="did you mean `tiny`"):
        read_preset("tinny")
