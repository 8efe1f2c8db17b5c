"""What ships keeps its promises: size, format, prompts that the grammar draws, models that write and judge English."""

import os
import re
from itertools import combinations
from pathlib import Path
from random import Random

import pytest
from built_in_task.card import dictionary_share, distinct_2
from built_in_task.stories import draw_prompts

from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.models.built_in import ASSETS, LANGUAGE_MODEL, REWARD_MODEL
from activedpo_cli.oracles import reward_model
from activedpo_cli.tiny.rule import score

DATA = Path(os.environ.get("ACTIVEDPO_DATA", Path(__file__).parents[3] / "shared" / "data"))


def prompts(split):
    return (ASSETS / f"prompts-{split}.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def sampled():
    """Three responses to each of 40 held-out prompts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(LANGUAGE_MODEL, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(LANGUAGE_MODEL)
    chosen = prompts("eval")[:40]
    batch = tokenizer(chosen, return_tensors="pt", padding=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = model.generate(**batch, do_sample=True, top_k=0, max_new_tokens=64, num_return_sequences=3)
    texts = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return chosen, [texts[start : start + 3] for start in range(0, 120, 3)]


def test_at_most_six_megabytes_and_no_pickles():
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    assert {path.suffix for path in files} == {".safetensors", ".json", ".txt", ".md"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files)


def test_the_models_load_whole_in_bfloat16():
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    for folder, loader, least, most in (
        (LANGUAGE_MODEL, AutoModelForCausalLM, 1_000_000, 2_000_000),
        (REWARD_MODEL, AutoModelForSequenceClassification, 100_000, 1_000_000),
    ):
        model, report = loader.from_pretrained(folder, output_loading_info=True)
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert model.config.model_type == "llama"
        assert model.dtype == torch.bfloat16
        assert least <= sum(weights.numel() for weights in model.parameters()) <= most
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert len(tokenizer) == model.config.vocab_size
        assert None not in (tokenizer.pad_token_id, tokenizer.eos_token_id)
        assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_prompts_are_those_of_the_grammar_and_all_different():
    assert prompts("train") + prompts("eval") == draw_prompts(1200, Random("0 prompts"))
    assert len({*prompts("train"), *prompts("eval")}) == 1200


@pytest.mark.whole
def test_samples_end_vary_and_are_made_of_words(sampled):
    flat = [text for texts in sampled[1] for text in texts]
    ended = sum(text.rstrip().endswith((".", "!", "?", '"')) for text in flat)
    assert ended / len(flat) > 0.9
    assert len(set(flat)) > 110
    assert distinct_2(flat) > 0.2
    for file in ("tinystories.txt",):
        if not (DATA / file).is_file():
            pytest.skip(f"no {DATA / file} to take known words from")
        known = set(re.findall(r"[A-Za-z]+", (DATA / file).read_text(errors="replace")))
        assert dictionary_share(flat, [word.lower() for word in known]) >= 0.95


@pytest.mark.whole
def test_the_reward_varies_within_a_prompt_and_mostly_agrees_with_the_rule(sampled):
    oracle = reward_model.build("tiny", LabelSettings(), "cpu")
    same = different = 0
    spreads = []
    for prompt, texts in zip(*sampled, strict=True):
        rewards = oracle.score([prompt] * 3, texts)
        rules = score([prompt] * 3, texts)
        spreads.append(max(rules) - min(rules))
        for a, b in combinations(range(3), 2):
            if rules[a] != rules[b]:
                same += (rules[a] > rules[b]) == (rewards[a] > rewards[b])
                different += (rules[a] > rules[b]) != (rewards[a] > rewards[b])
    assert sum(spreads) / len(spreads) > 0.2
    assert 0.8 < same / (same + different) < 1  # a judge of its own, not the rule in disguise


def test_the_reward_model_tells_warm_from_gloomy_in_words_of_its_own():
    oracle = reward_model.build("tiny", LabelSettings(), "cpu")
    prompt = "Mia was a little fox. One day, Mia found a kite at the park."
    warm, gloomy = oracle.score(
        [prompt] * 2,
        [" Tom laughed and they had fun. Mia was happy.", " The kite broke. Mia cried and was sad and alone."],
    )
    assert warm > gloomy + 1


def test_the_card_shows_what_was_measured():
    card = (ASSETS / "MODEL_CARD.md").read_text()
    share = re.search(r"words found in a dictionary \| ([\d.]+) %", card)
    assert share is not None
    assert float(share[1]) >= 95
    assert len(re.findall(r"^\d+\. \*", card, re.MULTILINE)) == 10
    assert "held-out loss" in card
