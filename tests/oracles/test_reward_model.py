import json
import socket

import pytest
import torch
from compared_pairs import make_comparison, seed_of_pair
from small_models import (
    BOS,
    CHAT_TEMPLATE,
    CONTEXT,
    PAD,
    VOCABULARY,
    byte_tokenizer,
    save_small_model,
    save_small_reward_model,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer, XLNetConfig

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, UsageError
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.oracles import reward_model

PROMPTS = ["What is rain?", "Name a colour, please.", "Hm", "Tell me a story about a fox.", "Why?"]
RESPONSES = ["Water.", "Blue, or perhaps green; it depends on the light.", "I see", "Once.", "Because it is so."]


@pytest.fixture(scope="module")
def deberta(tmp_path_factory):
    return save_small_reward_model(tmp_path_factory.mktemp("deberta"), "deberta-v2")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_small_reward_model(tmp_path_factory.mktemp("llama"), "llama")


def build(folder, **settings):
    return reward_model.build(str(folder), LabelSettings(**settings), "cpu")


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def logit(folder, **inputs):
    """One row through the model without padding: the reference."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(**inputs).logits.item()


def test_a_pair_model_reads_prompt_and_response_as_two_texts(deberta):
    tokenizer = AutoTokenizer.from_pretrained(deberta)
    expected = [
        logit(deberta, **tokenizer(prompt, response, return_tensors="pt"))
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    assert build(deberta).score(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 4) for score in expected}) == len(expected)


def test_a_pair_model_is_told_which_text_is_which(tmp_path):
    folder = save_small_reward_model(tmp_path, "deberta-v2")
    edit_json(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    inputs = AutoTokenizer.from_pretrained(folder)(PROMPTS[0], RESPONSES[0], return_tensors="pt")
    expected = logit(folder, **inputs)
    assert build(folder).score(PROMPTS[:2], RESPONSES[:2])[0] == pytest.approx(expected, abs=1e-5)
    inputs["token_type_ids"].zero_()
    assert logit(folder, **inputs) != pytest.approx(expected, abs=1e-3)


def rendered(prompt, response):
    return f"<bos><turn>user\n{prompt}<eos>\n<turn>assistant\n{response}<eos>\n"


def test_a_chat_model_reads_its_own_template_with_one_beginning(llama):
    tokenizer = AutoTokenizer.from_pretrained(llama)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    expected = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        ids = tokenizer(rendered(prompt, response), add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert (ids == BOS).sum() == 1
        expected.append(logit(llama, input_ids=ids))
    assert build(llama).score(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)
    messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    assert build(llama).score(messages, RESPONSES) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", ["deberta", "llama"])
def test_an_answer_that_the_prompt_begins_is_read_as_one_with_the_response(family, request):
    folder = request.getfixturevalue(family)
    started = [[{"role": "user", "content": p}, {"role": "assistant", "content": "Sure, "}] for p in PROMPTS]
    whole = build(folder).score(PROMPTS, ["Sure, " + response for response in RESPONSES])
    assert build(folder).score(started, RESPONSES) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("family", ["deberta", "llama"])
def test_scores_do_not_depend_on_the_batch(family, request):
    folder = request.getfixturevalue(family)
    whole = build(folder, unit_size=16).score(PROMPTS, RESPONSES)
    pairwise = build(folder, unit_size=1).score(PROMPTS, RESPONSES)
    reverse = build(folder).score(PROMPTS[::-1], RESPONSES[::-1])[::-1]
    assert pairwise == pytest.approx(whole, abs=1e-5)
    assert reverse == pytest.approx(whole, abs=1e-5)


def test_without_a_pad_token_scores_are_read_at_the_last_real_token(tmp_path):
    folder = save_small_reward_model(tmp_path, "llama")
    edit_json(folder / "config.json", pad_token_id=None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = [
        logit(folder, input_ids=tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"])
        for text in map(rendered, PROMPTS, RESPONSES)
    ]
    assert build(folder).score(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)


def test_many_different_last_tokens_without_a_pad_token(tmp_path):
    folder = save_small_reward_model(tmp_path, "llama")
    edit_json(folder / "config.json", pad_token_id=None)
    responses = [chr(code) * (1 + code % 7) for code in range(33, 97)]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = [model(tokenizer("p", r, return_tensors="pt")["input_ids"]).logits.item() for r in responses]
    scores = build(folder, input_format="pair", unit_size=32).score(["p"] * len(responses), responses)
    assert scores == pytest.approx(expected, abs=1e-5)


def test_a_new_head_is_refused(tmp_path):
    folder = save_small_model(tmp_path, "llama")
    edit_json(folder / "config.json", id2label={"0": "reward"}, label2id={"reward": 0})
    with pytest.raises(InvalidDataError, match="lacks trained weights") as raised:
        build(folder)
    assert raised.value.details == ("missing: score.weight",)


def test_two_outputs_are_refused(tmp_path):
    folder = save_small_model(tmp_path, "llama")
    with pytest.raises(InvalidDataError, match="has 2 outputs") as raised:
        build(folder)
    assert raised.value.details == ("architecture: LlamaForCausalLM",)


def test_pickled_weights_are_refused(tmp_path):
    folder = save_small_reward_model(tmp_path, "llama")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidDataError, match="cannot be loaded"):
        build(folder)


def test_the_beginning_of_a_long_prompt_is_cut_and_counted(deberta):
    oracle = build(deberta)
    prompt, response = "x" * 400 + " the end of the prompt", "the response"
    kept = prompt[-(CONTEXT - 3 - len(response)) :]  # one token per byte, three special ones
    assert oracle.score([prompt, kept], [response, response])[0] == pytest.approx(
        build(deberta).score([kept], [response])[0], abs=1e-5
    )
    assert oracle.truncated == 1


def test_the_beginning_of_a_long_chat_is_cut_behind_its_first_token(llama):
    oracle = build(llama, max_length=60)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    ids = tokenizer(rendered("x" * 100 + "the end", "short"), add_special_tokens=False)["input_ids"]
    expected = logit(llama, input_ids=torch.tensor([[BOS, *ids[-59:]]]))
    assert oracle.score(["x" * 100 + "the end"], ["short"]) == pytest.approx([expected], abs=1e-5)
    assert oracle.truncated == 1


@pytest.mark.parametrize("family", ["deberta", "llama"])
def test_a_response_is_never_cut(family, request):
    oracle = build(request.getfixturevalue(family), max_length=40)
    with pytest.raises(InvalidDataError, match="too long for the reward model"):
        oracle.score(["prompt"], ["y" * 60])
    assert oracle.truncated == 0


def test_a_length_beyond_the_positions_is_refused(llama):
    with pytest.raises(UsageError, match=f"reads {CONTEXT} tokens"):
        build(llama, max_length=CONTEXT + 1)


def test_an_architecture_without_a_limit_has_none(tmp_path):
    """XLNet's configuration says -1 for its positions."""
    sizes = {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}
    config = XLNetConfig(**sizes, initializer_range=0.2, num_labels=1, pad_token_id=PAD)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    expected = logit(tmp_path, **tokenizer(PROMPTS[0], RESPONSES[0], return_tensors="pt"))
    oracle = build(tmp_path, max_length=2 * CONTEXT, input_format="pair")
    assert oracle.score(PROMPTS[:1], RESPONSES[:1]) == pytest.approx([expected], abs=1e-5)
    assert oracle.truncated == 0


def test_chat_needs_a_template(deberta):
    with pytest.raises(UsageError, match="no chat template"):
        build(deberta, input_format="chat")


def test_a_template_that_refuses_a_conversation(tmp_path):
    folder = save_small_reward_model(tmp_path, "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    tokenizer.save_pretrained(folder)
    with pytest.raises(InvalidDataError, match="conversation of user, assistant") as raised:
        build(folder).score(["p"], ["r"])
    assert "roles must alternate" in raised.value.details[0]


def test_verdicts_follow_the_scores(deberta):
    oracle = build(deberta)
    comparisons = [make_comparison(1, *RESPONSES[:2]), make_comparison(2, *RESPONSES[2:4])]
    for pair, verdict in zip(comparisons, oracle.compare(comparisons, seed_of_pair), strict=True):
        score_a, score_b = oracle.score([pair.prompt] * 2, [pair.response_a.text, pair.response_b.text])
        assert verdict.preferred == ("a" if score_a > score_b else "b")
        assert (verdict.score_a, verdict.score_b) == pytest.approx((score_a, score_b), abs=1e-5)


def test_the_identity_follows_the_content_not_the_place(tmp_path, deberta):
    copy = save_small_reward_model(tmp_path / "copy", "deberta-v2")
    settings = LabelSettings()
    assert reward_model.identity(str(copy), settings) == reward_model.identity(str(deberta), settings)
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert reward_model.identity(str(copy), settings) != reward_model.identity(str(deberta), settings)


def test_the_identity_of_a_hub_model_is_its_id_and_revision():
    assert reward_model.identity("org/name@abc", LabelSettings()) != reward_model.identity("org/name", LabelSettings())


def test_an_unreachable_hub_fails_fast_and_names_the_folder_option(monkeypatch):
    def unreachable(*arguments, **options):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(InvalidDataError, match="no-such-org/no-such-model") as raised:
        build("no-such-org/no-such-model")
    assert "reward-model:FOLDER" in raised.value.hint


def test_no_model_named():
    with pytest.raises(UsageError, match="which model"):
        reward_model.build(None, LabelSettings(), "cpu")


def test_batches_that_do_not_fit_are_scored_in_halves(deberta, monkeypatch):
    prompts, responses = [f"Say {n}" for n in range(5)], [f"well, {n * 111}" for n in range(5)]
    oracle = build(deberta)
    expected = oracle.score(prompts, responses)
    real, sizes = oracle._score_batch, []

    def limited(rows):
        sizes.append(len(rows))
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(rows)

    most = 2
    monkeypatch.setattr(oracle, "_score_batch", limited)
    assert oracle.score(prompts, responses) == pytest.approx(expected, abs=1e-5)
    assert sizes[0] == 5
    assert sum(size for size in sizes if size <= 2) == 5
    most = 0
    with pytest.raises(ActiveDPOError, match="memory does not suffice for one input") as caught:
        oracle.score(prompts, responses)
    assert "label.max_length" in caught.value.hint
