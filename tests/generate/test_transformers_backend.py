"""Sampling: only the given settings decide, batches equal single rows, stops cut, seeds repeat."""

import math
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from small_models import EOS, save_small_model
from small_policies import ADAPTER, disturb, load
from transformers import GenerationConfig

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.generate.backends.base import SamplingSettings
from activedpo_cli.generate.backends.transformers_backend import sample_unit
from activedpo_cli.models.adapters import attach_adapter, create_initial_adapter

PROMPTS = [[5, 17, 99], [40], [200, 31, 8, 77, 3, 12]]
HOSTILE = {
    "do_sample": False,
    "top_k": 1,
    "top_p": 0.01,
    "temperature": 0.01,
    "min_p": 0.9,
    "typical_p": 0.1,
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[number] for number in range(200)],
    "suppress_tokens": list(range(100)),
    "forced_eos_token_id": 205,
    "min_new_tokens": 7,
    "num_beams": 3,
    "max_length": 4,
    "eos_token_id": [1, 2, 3],
    "renormalize_logits": True,
    "sequence_bias": [[[5], 20.0]],
}


def sampling(**changes) -> SamplingSettings:
    fields = {"num_responses": 2, "max_new_tokens": 12, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return SamplingSettings(**fields | {"stop_token_ids": frozenset({EOS})} | changes)


def sample(model, prompts=PROMPTS, seed=0, pad_token_id=258, **changes):
    return sample_unit(model, prompts, sampling=sampling(**changes), seed=seed, pad_token_id=pad_token_id)


def tokens(units):
    return [[response.token_ids for response in responses] for responses in units]


@pytest.fixture(scope="session")
def stories_folder() -> Path:
    """The real pretrained model of the shared data."""
    data = Path(os.environ.get("ACTIVEDPO_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    if not (data / "stories260k").is_dir():
        pytest.skip("stories260k is not there (set ACTIVEDPO_DATA)")
    return data / "stories260k"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(save_small_model(tmp_path_factory.mktemp("llama"), "llama", with_pad=False))


def test_shape_and_seed(model):
    first = sample(model)
    assert [len(responses) for responses in first] == [2, 2, 2]
    torch.manual_seed(5)
    expected_next_draw = torch.rand(())
    torch.manual_seed(5)
    assert sample(model) == first
    assert torch.equal(torch.rand(()), expected_next_draw)
    assert sample(model, seed=2**62 + 1) != first
    assert first[0][0] != first[0][1]


@pytest.mark.parametrize("wrapped", [False, True])
def test_checkpoint_settings_decide_nothing(tmp_path, wrapped):
    model = load(save_small_model(tmp_path / "m"))
    if wrapped:
        create_initial_adapter(model, ADAPTER, seed=0, destination=tmp_path / "a", base_name="b")
        model = disturb(attach_adapter(model, tmp_path / "a", trainable=False))
    plain = sample(model)
    holders = [model, model.get_base_model()] if wrapped else [model]
    for holder in holders:
        holder.generation_config = GenerationConfig(**HOSTILE)
    assert sample(model) == plain
    assert [holder.generation_config.top_k for holder in holders] == [1] * len(holders)


def test_hostile_generation_config_file(tmp_path):
    folder = save_small_model(tmp_path)
    plain = sample(load(folder))
    (folder / "generation_config.json").write_text('{"top_k": 1, "temperature": 0.1, "repetition_penalty": 9.0}')
    loaded = load(folder)
    assert loaded.generation_config.top_k == 1
    assert sample(loaded) == plain


def test_frequencies_are_the_models_own_distribution(model):
    """5 sigma of the binomial spread, for each of the likeliest tokens; top-k 50, a library default, would miss it."""
    draws = 4000
    counts = Counter(ids[0] for ids in tokens(sample(model, [[40]], num_responses=draws, max_new_tokens=1))[0])
    with torch.no_grad():
        probabilities = torch.softmax(model(torch.tensor([[40]])).logits[0, -1].double(), -1)
    for token_id in range(260):
        p = probabilities[token_id].item()
        assert abs(counts[token_id] / draws - p) < 5 * math.sqrt(p * (1 - p) / draws) + 1 / draws
    assert len(counts) > 50


@pytest.mark.parametrize(("changes", "kept"), [({"top_k": 3}, 3), ({"top_p": 1e-6}, 1)])
def test_top_k_and_top_p_reach_the_sampler(model, changes, kept):
    with torch.no_grad():
        likeliest = model(torch.tensor([[40]])).logits[0, -1].topk(kept).indices.tolist()
    drawn = tokens(sample(model, [[40]], num_responses=200, max_new_tokens=1, **changes))[0]
    assert {ids[0] for ids in drawn} == set(likeliest)


@pytest.mark.parametrize("family", ["llama", "gemma", "qwen3", "gpt2"])
@pytest.mark.parametrize("pad_token_id", [258, EOS, None])
def test_left_padded_batch_is_greedy_like_each_prompt_alone(tmp_path, family, pad_token_id):
    model = load(save_small_model(tmp_path, family))
    cold = {"temperature": 1e-6, "num_responses": 1, "pad_token_id": pad_token_id}
    batch = tokens(sample(model, **cold))
    for prompt, [token_ids] in zip(PROMPTS, batch, strict=True):
        assert tokens(sample(model, [prompt], seed=9, **cold)) == [[token_ids]]
        assert token_ids == greedy_by_hand(model, prompt, 12)


def greedy_by_hand(model, prompt, steps):
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        if ids[-1] == EOS:
            break
    return ids[len(prompt) :]


def test_stop_tokens_end_a_response_and_belong_to_it(model):
    stops = frozenset(range(0, 260, 8))
    responses = [response for unit in sample(model, num_responses=20, stop_token_ids=stops) for response in unit]
    assert {response.finish_reason for response in responses} == {"stop", "length"}
    for response in responses:
        *before, last = response.token_ids
        assert not stops & set(before)
        assert (last in stops) == (response.finish_reason == "stop")
        assert response.finish_reason == "stop" or len(response.token_ids) == 12


def test_no_eos_is_added_to_a_cut_response(model):
    responses = [response for unit in sample(model, stop_token_ids=frozenset(), num_responses=8) for response in unit]
    assert all(response.finish_reason == "length" and len(response.token_ids) == 12 for response in responses)


def test_padding_after_a_stop_is_cut_off(model):
    stops = frozenset(range(128))
    for pad_token_id in (EOS, 5, 258):  # no stop, a stop, no stop
        for unit in sample(model, stop_token_ids=stops, pad_token_id=pad_token_id, num_responses=6):
            assert all(not stops & set(response.token_ids[:-1]) for response in unit)
            assert all(response.token_ids[-1] in stops or len(response.token_ids) == 12 for response in unit)


def test_policy_samples_from_its_adapter(tmp_path):
    base = load(save_small_model(tmp_path / "m"))
    before = sample(base)
    create_initial_adapter(base, ADAPTER, seed=0, destination=tmp_path / "a", base_name="b")
    policy = attach_adapter(base, tmp_path / "a", trainable=False)
    assert sample(policy) == before
    assert sample(disturb(policy)) != before


def test_not_finite_probabilities_are_explained(tmp_path):
    model = load(save_small_model(tmp_path))
    model.get_output_embeddings().weight.data[3] = float("nan")
    with pytest.raises(ActiveDPOError, match="not finite"):
        sample(model)


def test_nothing_is_printed(model, capfd):
    sample(model, pad_token_id=None)
    assert capfd.readouterr() == ("", "")


def test_real_model_ends_its_story_with_bos(stories_folder):
    model = load(stories_folder)
    [responses] = sample(
        model, [[1]], num_responses=8, max_new_tokens=400, stop_token_ids=frozenset({1, 2}), pad_token_id=2
    )
    assert {response.token_ids[-1] for response in responses if response.finish_reason == "stop"} == {1}
