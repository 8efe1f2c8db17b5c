"""Sampling with a model server: what it is proved to answer by, what is asked of it, and every way in which it may fail."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from judge_server import Raw
from model_server import ModelServer, model_server, refusal
from small_models import EOS, save_small_model
from small_policies import disturb, load

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, UsageError
from activedpo_cli.base.settings import AdapterSettings, GenerateSettings
from activedpo_cli.generate.backends import _completions, server
from activedpo_cli.generate.backends.base import Policy, SamplingSettings
from activedpo_cli.models.adapters import attach_adapter, create_initial_adapter, reference_mode, save_adapter
from activedpo_cli.models.loading import load_tokenizer

PROMPTS = [[5, 17, 99], [40], [200, 31, 8, 77, 3, 12]]
STOPS = frozenset({EOS, *range(0, 250, 8)})


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A small model with an adapter that has been trained, as it were."""
    place = tmp_path_factory.mktemp("served")
    folder = save_small_model(place / "model", num_hidden_layers=1)
    base = load(folder)
    create_initial_adapter(
        base, AdapterSettings(r=4, lora_alpha=8), seed=0, destination=place / "initial", base_name="b"
    )
    trained = disturb(attach_adapter(base, place / "initial", trainable=False), scale=0.03)
    save_adapter(trained, place / "adapter", base_name="b")
    return Policy(
        model=attach_adapter(load(folder), place / "adapter", trainable=False),
        tokenizer=load_tokenizer(str(folder), None),
        adapter=place / "adapter",
        reference=str(folder),
    )


@pytest.fixture
def served(policy: Policy) -> Iterator[ModelServer]:
    with model_server(Path(policy.reference)) as running:
        yield running


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_completions, "growing_pause", lambda failures: 0.001)


def sampling(**changes: Any) -> SamplingSettings:
    fields = {"num_responses": 2, "max_new_tokens": 6, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return SamplingSettings(**fields | {"stop_token_ids": STOPS} | changes)


def opened(policy: Policy, served: ModelServer, told: list[str] | None = None, **settings: Any) -> Any:
    said = [] if told is None else told
    return server.open_sampler(policy, GenerateSettings(server_url=served.url, **settings), tell=said.append)


def base_of(policy: Policy) -> Policy:
    return Policy(
        model=load(Path(policy.reference)), tokenizer=policy.tokenizer, adapter=None, reference=policy.reference
    )


RANDOM = {"finish_reason": "length", "logprobs": {"token_logprobs": [-5.5] * 6}}
"""A response that was sampled uniformly."""


def look(settings: GenerateSettings, told: list[str] | None = None) -> None:
    said = [] if told is None else told
    server.check(settings, tell=said.append)


def said_by(error: ActiveDPOError) -> str:
    return "\n".join([error.message, *error.details, f"hint: {error.hint}"])


def test_the_adapter_is_loaded_once_by_its_digest_and_proved(policy: Policy, served: ModelServer) -> None:
    first = opened(policy, served).facts()
    [load_call] = [body for path, body, _ in served.asked if path == "/load_lora_adapter"]
    assert load_call == {"lora_name": first["adapter"], "lora_path": str(policy.adapter)}
    assert first["adapter"] == server.adapter_name(policy.adapter)
    assert first["worst_difference"] < 1e-4, "the server merges the adapter into the weights, PEFT adds it beside"
    assert first["adapter_share"] == pytest.approx(1, abs=1e-3)
    assert first["adapter_effect"] > first["tolerance"]
    again = opened(policy, served).facts()
    assert again == first
    assert sum(path == "/load_lora_adapter" for path, _, _ in served.asked) == 1


def test_another_adapter_has_another_name(policy: Policy, tmp_path: Path) -> None:
    names = {server.adapter_name(policy.adapter)}
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        other = tmp_path / file
        other.mkdir()
        for path in policy.adapter.iterdir():
            (other / path.name).write_bytes(path.read_bytes() + (b" " if path.name == file else b""))
        names.add(server.adapter_name(other))
    assert len(names) == 3


def test_the_base_is_asked_by_its_own_name(policy: Policy, served: ModelServer) -> None:
    sampler = opened(base_of(policy), served)
    sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3)
    assert {body["model"] for path, body, _ in served.asked if path == "/completions"} == {"the-base"}
    assert sampler.facts()["adapter"] is None
    assert sampler.facts()["worst_difference"] < 1e-4


def test_every_field_is_sent(policy: Policy, served: ModelServer) -> None:
    """Whatever is left out, a server takes from the checkpoint's generation_config.json or from its own defaults."""
    asked = sampling(temperature=0.7, top_k=5, top_p=0.9)
    opened(policy, served).sample_unit(PROMPTS, sampling=asked, seed=3)
    bodies = served.bodies()
    assert sorted(body["prompt"] for body in bodies) == sorted([prompt] for prompt in PROMPTS)
    assert len({body["seed"] for body in bodies}) == len(PROMPTS)
    for body in bodies:
        assert body | {"prompt": None, "seed": None} == {
            "model": server.adapter_name(policy.adapter),
            **{"prompt": None, "seed": None, "n": 2, "max_tokens": 6, "min_tokens": 0},
            **{"temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.0},
            **{"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0},
            **{"stop": [], "stop_token_ids": sorted(STOPS), "ignore_eos": False, "echo": False, "stream": False},
            **{"add_special_tokens": False, "skip_special_tokens": False},
            **{"logprobs": 1, "return_token_ids": True, "return_tokens_as_token_ids": True},
        }
    opened(policy, served).sample_unit(PROMPTS[:1], sampling=sampling(), seed=3)
    assert served.bodies()[-1]["top_k"] == -1


def test_responses_end_as_the_local_ones_do(policy: Policy, served: ModelServer) -> None:
    sampler = opened(policy, served)
    units = sampler.sample_unit(PROMPTS, sampling=sampling(num_responses=12), seed=3)
    assert [len(responses) for responses in units] == [12] * 3
    responses = [response for unit in units for response in unit]
    assert {response.finish_reason for response in responses} == {"stop", "length"}
    for response in responses:
        *before, last = response.token_ids
        assert not STOPS & set(before)
        assert (last in STOPS) == (response.finish_reason == "stop")
        assert response.finish_reason == "stop" or len(response.token_ids) == 6
    assert sampler.sample_unit(PROMPTS, sampling=sampling(num_responses=12), seed=3) == units
    assert sampler.sample_unit(PROMPTS, sampling=sampling(num_responses=12), seed=4) != units
    assert len({tuple(response.token_ids) for response in responses}) > 25, "each response has randomness of its own"


def test_frequencies_are_those_of_the_policy(policy: Policy, served: ModelServer) -> None:
    """By χ² within 5 sigma of its mean; by the base's probabilities it is beyond that."""
    draws = 6000
    asked = sampling(num_responses=draws, max_new_tokens=1, stop_token_ids=frozenset())
    [found] = opened(policy, served).sample_unit([[5, 17, 99]], sampling=asked, seed=0)
    counts = Counter(response.token_ids[0] for response in found)

    def sigmas() -> float:
        with torch.no_grad():
            probabilities = policy.model(torch.tensor([[5, 17, 99]])).logits[0, -1].double().softmax(-1).tolist()
        expected = {token: draws * p for token, p in enumerate(probabilities) if draws * p > 5}
        chi2 = sum((counts[token] - number) ** 2 / number for token, number in expected.items())
        return (chi2 - len(expected)) / math.sqrt(2 * len(expected))

    assert abs(sigmas()) < 5
    with reference_mode(policy.model):
        assert sigmas() > 5


def other_weights(policy: Policy, tmp_path: Path) -> Path:
    return save_small_model(tmp_path / "other", seed=1, num_hidden_layers=1)


@pytest.mark.parametrize("with_adapter", [False, True])
def test_another_base_is_refused(policy: Policy, tmp_path: Path, with_adapter: bool) -> None:
    with (
        model_server(other_weights(policy, tmp_path)) as running,
        pytest.raises(InvalidDataError, match="is another model than this run's base") as caught,
    ):
        opened(policy if with_adapter else base_of(policy), running)
    assert "--dtype float32" in said_by(caught.value)
    assert policy.reference in said_by(caught.value)


def test_the_base_rounded_is_another_one(policy: Policy, tmp_path: Path) -> None:
    """A server that serves float32 weights in bfloat16 samples from something else."""
    with model_server(Path(policy.reference)) as running:
        running.models["the-base"] = load(Path(policy.reference)).to(torch.bfloat16)
        with pytest.raises(InvalidDataError, match="computes otherwise"):
            opened(base_of(policy), running)


@pytest.mark.parametrize(
    ("applies", "words"),
    [(0.0, "does not apply it: it answers as the base does"), (0.5, "in part or with another scale"), (2.0, "answers")],
)
def test_an_adapter_that_is_not_applied_is_found(policy: Policy, applies: float, words: str) -> None:
    with (
        model_server(Path(policy.reference), applies=applies) as running,
        pytest.raises(ActiveDPOError, match=words) as caught,
    ):
        opened(policy, running)
    assert caught.value.exit_code == 1
    assert "every response before is kept" in said_by(caught.value)


def test_another_adapter_behind_the_name_is_found(policy: Policy, served: ModelServer) -> None:
    stranger = disturb(attach_adapter(load(Path(policy.reference)), policy.adapter, trainable=False), seed=5)
    served.models[server.adapter_name(policy.adapter)] = stranger.merge_and_unload()
    with pytest.raises(ActiveDPOError, match="answers neither as the adapter"):
        opened(policy, served)


def test_an_adapter_without_effect_needs_no_proof(policy: Policy, served: ModelServer, tmp_path: Path) -> None:
    base = load(Path(policy.reference))
    create_initial_adapter(base, AdapterSettings(r=4), seed=0, destination=tmp_path / "a", base_name="b")
    fresh = attach_adapter(base, tmp_path / "a", trainable=False)
    told: list[str] = []
    facts = opened(
        Policy(model=fresh, tokenizer=policy.tokenizer, adapter=tmp_path / "a", reference="b"), served, told
    ).facts()
    assert (facts["adapter_share"], facts["adapter_effect"], told) == (None, 0.0, [])


def test_an_effect_below_the_servers_rounding_is_said(policy: Policy, served: ModelServer, tmp_path: Path) -> None:
    base = load(Path(policy.reference))
    create_initial_adapter(base, AdapterSettings(r=4), seed=0, destination=tmp_path / "a", base_name="b")
    faint = disturb(attach_adapter(base, tmp_path / "a", trainable=False), scale=3e-8)
    save_adapter(faint, tmp_path / "faint", base_name="b")
    told: list[str] = []
    opened(Policy(model=faint, tokenizer=policy.tokenizer, adapter=tmp_path / "faint", reference="b"), served, told)
    assert len(told) == 1
    assert "whether the server applies it can't be told" in told[0]


@pytest.mark.parametrize(
    ("scale", "applies", "words"),
    [(0.03, 1.0, ""), (0.03, 0.0, "does not apply it"), (0.001, 1.0, "can't be told"), (0.0, 1.0, "can't be told")],
)
def test_in_half_precision(policy: Policy, tmp_path: Path, scale: float, applies: float, words: str) -> None:
    """The server merges the adapter, so that each token is rounded anew, also by an adapter that hardly changes it."""
    folder = Path(policy.reference)
    create_initial_adapter(
        load(folder), AdapterSettings(r=4, lora_alpha=8), seed=0, destination=tmp_path / "i", base_name="b"
    )
    trained = disturb(attach_adapter(load(folder), tmp_path / "i", trainable=False), scale=max(scale, 1e-5))
    save_adapter(trained, tmp_path / "a", base_name="b")
    half = Policy(
        model=attach_adapter(load(folder, dtype="bfloat16"), tmp_path / "a", trainable=False),
        tokenizer=policy.tokenizer,
        adapter=tmp_path / "a",
        reference="b",
    )
    told: list[str] = []
    with model_server(folder, applies=applies, dtype="bfloat16") as running:
        try:
            sampler = opened(half, running, told)
            sampler.sample_unit(PROMPTS * 2, sampling=sampling(max_new_tokens=10), seed=1)
        except ActiveDPOError as error:
            told.append(error.message)
    assert (words in told[0]) if words else told == []


@pytest.mark.parametrize(
    ("behaviour", "words", "advice"),
    [
        ({"max_lora_rank": 2}, "HTTP 400: LoRA rank 4 is greater", "--max-lora-rank 8"),
        ({"loads_adapters": False}, "HTTP 404: Not Found", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        ({"sees_adapters": False}, "No adapter found", "under the same path"),
    ],
)
def test_an_adapter_that_is_not_loaded(policy: Policy, behaviour: dict[str, Any], words: str, advice: str) -> None:
    with (
        model_server(Path(policy.reference), **behaviour) as running,
        pytest.raises(ActiveDPOError, match="has not loaded the adapter") as caught,
    ):
        opened(policy, running)
    assert words in said_by(caught.value)
    assert advice in said_by(caught.value)
    assert sum(path == "/load_lora_adapter" for path, _, _ in running.asked) == 1


def test_two_processes_load_one_adapter(policy: Policy, served: ModelServer) -> None:
    """The other one loads it between our look and our call, which is then refused."""

    def change(path: str, body: dict[str, Any], answer: Any) -> Any:
        return refusal(400, "has already been loaded") if path == "/load_lora_adapter" else answer

    served.change = change
    assert opened(policy, served).facts()["adapter_share"] == pytest.approx(1, abs=1e-3)


def in_openais_way(path: str, body: dict[str, Any], answer: Any) -> Any:
    """A strict server without vLLM's field."""
    return refusal(400, "unknown field prompt_logprobs") if "prompt_logprobs" in body else answer


def leaving_out(path: str, body: dict[str, Any], answer: Any) -> Any:
    """A server that overlooks what it does not know."""
    if path == "/completions" and "return_token_ids" not in body:
        for choice in answer["choices"]:
            choice.pop("prompt_logprobs", None)
            choice.pop("logprobs", None)
    return answer


def test_a_server_without_vllms_field_is_asked_by_echo(policy: Policy, served: ModelServer) -> None:
    served.change = in_openais_way
    assert opened(policy, served).facts()["worst_difference"] < 1e-4


def test_a_server_that_gives_no_probabilities_of_a_prompt_can_not_tell(policy: Policy, served: ModelServer) -> None:
    served.change = leaving_out
    with pytest.raises(ActiveDPOError, match="can't tell how probable a text is"):
        opened(policy, served)


def test_text_alone_is_refused(policy: Policy, served: ModelServer) -> None:
    sampler = opened(policy, served)
    served.change = each_choice(lambda choice: [choice.pop("token_ids"), choice["logprobs"].update(tokens=[" a"])])
    with pytest.raises(ActiveDPOError, match="gives text without the tokens") as caught:
        sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3)
    assert "generate --responses FILE" in said_by(caught.value)


def test_names_of_ids_are_ids(policy: Policy, served: ModelServer) -> None:
    """Older servers give them so, and no others."""
    sampler = opened(policy, served)
    expected = sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3)
    served.change = each_choice(lambda choice: choice.pop("token_ids"))
    assert sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3) == expected


def each_choice(change: Any) -> Any:
    """Change every response that is sampled."""

    def changed(path: str, body: dict[str, Any], answer: Any) -> Any:
        if path == "/completions" and "return_token_ids" in body:
            for choice in answer["choices"]:
                change(choice)
        return answer

    return changed


def test_the_token_that_ended_a_response_may_be_named_beside_it(policy: Policy, served: ModelServer) -> None:
    sampler = opened(policy, served)
    expected = sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3)

    def shorten(choice: dict[str, Any]) -> None:
        if choice["finish_reason"] == "stop":
            choice["token_ids"].pop()
            choice["logprobs"]["token_logprobs"].pop()

    served.change = each_choice(shorten)
    assert sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3) == expected


def test_what_follows_an_end_is_cut_off(policy: Policy, served: ModelServer) -> None:
    """A server that overlooks stop_token_ids goes on, and what it sampled before is what was wanted."""
    sampler = opened(policy, served)
    expected = sampler.sample_unit(PROMPTS, sampling=sampling(num_responses=6), seed=3)

    def deaf(body: dict[str, Any]) -> None:
        body["stop_token_ids"] = []

    real = served.answer
    served.answer = lambda path, body: (deaf(body) if path == "/completions" else None, real(path, body))[1]  # type: ignore[method-assign]
    assert sampler.sample_unit(PROMPTS, sampling=sampling(num_responses=6), seed=3) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda choice: choice["token_ids"].__setitem__(0, 260), "samples token 260, and the model has 260"),
        (lambda choice: choice["token_ids"].__setitem__(0, -1), "samples token -1"),
        (lambda choice: choice["token_ids"].__setitem__(0, "a"), "samples token a"),
        (lambda choice: choice["logprobs"]["token_logprobs"].__setitem__(0, math.nan), "no numbers"),
        (lambda choice: choice["logprobs"]["token_logprobs"].__setitem__(0, None), "no numbers"),
        (lambda choice: choice["logprobs"].update(token_logprobs=[]), "gives 0 log-probabilities"),
        (lambda choice: choice["prompt_token_ids"].insert(0, 256), "reads .* other tokens"),
        (lambda choice: choice.update(token_ids=[1], finish_reason="length"), "after 1 tokens with the reason length"),
        (lambda choice: choice.update(token_ids=[1], finish_reason="abort"), "with the reason abort"),
        (lambda choice: choice.update(token_ids=[1], finish_reason="stop", stop_reason=None), "the reason stop"),
        (lambda choice: choice.update(token_ids=[1] * 7, finish_reason="length"), "after 7 tokens"),
        (lambda choice: choice.update(RANDOM, token_ids=[1 + choice["index"]] * 6), "has sampled from another model"),
    ],
)
def test_what_is_no_response_is_refused(policy: Policy, served: ModelServer, change: Any, words: str) -> None:
    sampler = opened(policy, served)
    served.change = each_choice(change)
    with pytest.raises(ActiveDPOError, match=words) as caught:
        sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3)
    assert "every response before is kept" in said_by(caught.value)


@pytest.mark.parametrize(("number", "words"), [(0, "gives 0 responses"), (1, "gives 1 responses"), (3, "gives 3 resp")])
def test_a_wrong_number_of_responses(policy: Policy, served: ModelServer, number: int, words: str) -> None:
    def changed(path: str, body: dict[str, Any], answer: Any) -> Any:
        if "return_token_ids" in body:
            answer["choices"] = [answer["choices"][0]] * number
        return answer

    sampler = opened(policy, served)
    served.change = changed
    with pytest.raises(ActiveDPOError, match=words):
        sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3)


def test_responses_are_sorted(policy: Policy, served: ModelServer) -> None:
    sampler = opened(policy, served)
    expected = sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3)
    served.change = lambda path, body, answer: answer | {"choices": answer["choices"][::-1]}
    assert sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3) == expected


def test_a_server_that_answers_otherwise_later_is_found(policy: Policy, served: ModelServer) -> None:
    """Another one behind the same address, that has the name and not the weights."""
    sampler = opened(policy, served)
    served.models[server.adapter_name(policy.adapter)] = served.models["the-base"]
    with pytest.raises(ActiveDPOError, match="has sampled from another model"):
        sampler.sample_unit(PROMPTS * 3, sampling=sampling(stop_token_ids=frozenset({EOS})), seed=3)


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "a"])
def test_probabilities_that_are_no_numbers(policy: Policy, served: ModelServer, value: Any) -> None:
    def changed(path: str, body: dict[str, Any], answer: Any) -> Any:
        if "prompt_logprobs" in body:
            next(iter(answer["choices"][0]["prompt_logprobs"][1].values()))["logprob"] = value
        return answer

    served.change = changed
    with pytest.raises(ActiveDPOError, match="are no numbers"):
        opened(policy, served)


def failing(times: int, raw: Raw) -> Any:
    """Answers so at first."""
    left = [times]

    def changed(path: str, body: dict[str, Any], answer: Any) -> Any:
        if path == "/completions" and left[0]:
            left[0] -= 1
            return raw
        return answer

    return changed


PASSING = [
    refusal(429, "slow down"),
    refusal(503, "loading"),
    refusal(500, "engine dead"),
    Raw(200, {"a": 1, "b": "cut off here, halfway"}, cut=True),
    Raw(200, b'{"choices": ['),
    Raw(200, b"[]"),
]


@pytest.mark.parametrize("raw", PASSING)
def test_a_fault_that_passes_is_survived(policy: Policy, served: ModelServer, raw: Raw) -> None:
    expected = opened(policy, served).sample_unit(PROMPTS, sampling=sampling(), seed=3)
    sampler = opened(policy, served)
    served.change = failing(3, raw)
    assert sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3) == expected


@pytest.mark.parametrize("raw", [PASSING[0], *PASSING[3:5]])
def test_a_fault_that_stays_ends(policy: Policy, served: ModelServer, raw: Raw) -> None:
    sampler = opened(policy, served)
    before = len(served.asked)
    served.change = failing(10**6, raw)
    with pytest.raises(ActiveDPOError) as caught:
        sampler.sample_unit(PROMPTS[:1], sampling=sampling(), seed=3)
    assert "every response before is kept" in said_by(caught.value)
    assert len(served.asked) - before == 1 + _completions.MAX_RETRIES


def test_a_server_that_hangs(policy: Policy, served: ModelServer) -> None:
    served.change = lambda path, body, answer: Raw(hang=True)
    with pytest.raises(ActiveDPOError, match=r"does not answer: no byte for 0.05 s"):
        opened(policy, served, server_timeout=0.05)


def test_a_wait_is_said(served: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    left, told = [1], list[str]()
    monkeypatch.setattr(_completions, "NOTED_WAIT", 0.01)

    def changed(path: str, body: dict[str, Any], answer: Any) -> Any:
        return Raw(503, {"error": "loading"}, {"Retry-After": "0.02"}) if left and left.pop() else answer

    served.change = changed
    look(GenerateSettings(server_url=served.url), told)
    assert told == ["the server takes no call for 0 s (HTTP 503); waiting"]


def test_a_wait_of_a_day_is_not_waited_for(policy: Policy, served: ModelServer) -> None:
    served.change = lambda path, body, answer: Raw(429, {"error": "busy"}, {"Retry-After": "86400"})
    with pytest.raises(ActiveDPOError, match="24.0 hours"):
        opened(policy, served)


def test_a_prompt_beyond_the_servers_context_is_refused_before_it_is_asked(policy: Policy, served: ModelServer) -> None:
    served.longest = 11
    sampler = opened(policy, served)
    with pytest.raises(ActiveDPOError, match="reads 11 tokens at most, and 12 are needed") as caught:
        sampler.sample_unit(PROMPTS, sampling=sampling(), seed=3)
    assert "--max-model-len 12" in said_by(caught.value)
    assert not served.bodies()


def test_a_redirection_is_not_followed(policy: Policy, served: ModelServer) -> None:
    served.change = lambda path, body, answer: Raw(307, {}, {"Location": "http://elsewhere.example/v1"})
    with pytest.raises(ActiveDPOError, match="HTTP 307") as caught:
        opened(policy, served)
    assert "elsewhere.example/v1, where nothing was sent" in said_by(caught.value)


def test_the_key_is_sent_and_shown_nowhere(
    policy: Policy, served: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SERVER", "very-secret")
    served.change = lambda path, body, answer: refusal(401, "the key very-secret is wrong")
    with pytest.raises(ActiveDPOError, match="HTTP 401") as caught:
        opened(policy, served, server_api_key_env="MY_SERVER")
    assert {headers["Authorization"] for _, _, headers in served.asked} == {"Bearer very-secret"}
    assert "very-secret" not in said_by(caught.value)
    assert "server_api_key_env" in said_by(caught.value)


def test_a_key_does_not_cross_the_network_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER", "very-secret")
    settings = GenerateSettings(server_url="http://gpu.example:8000/v1", server_api_key_env="MY_SERVER")
    with pytest.raises(UsageError, match="cross the network unencrypted"):
        look(settings)


def test_nobody_listens_and_nothing_is_named() -> None:
    with pytest.raises(ActiveDPOError, match="does not answer"):
        look(GenerateSettings(server_url="http://127.0.0.1:9/v1"))
    with pytest.raises(UsageError, match="says no server"):
        look(GenerateSettings())
    with pytest.raises(UsageError, match="NOT_SET_ANYWHERE"):
        look(GenerateSettings(server_url="http://127.0.0.1:9/v1", server_api_key_env="NOT_SET_ANYWHERE"))


def listing(*names: str) -> Any:
    data = [{"id": name} for name in names]
    return lambda path, body, answer: {"data": data} if path == "/models" else answer


@pytest.mark.parametrize(
    ("change", "wanted", "words"),
    [
        (listing(), None, "which model"),
        (listing("one", "other"), None, "`one`, `other`"),
        (listing("one"), "other", "no model by the name `other`"),
        (lambda path, body, answer: {"object": "list"}, None, "gives no list of models"),
    ],
)
def test_which_model_is_the_base_is_not_guessed(
    served: ModelServer, change: Any, wanted: str | None, words: str
) -> None:
    served.change = change
    with pytest.raises(ActiveDPOError) as caught:
        look(GenerateSettings(server_url=served.url, server_model=wanted))
    assert words in said_by(caught.value)


def test_adapters_of_ours_are_no_bases(served: ModelServer) -> None:
    served.change = listing("activedpo-0123", "one")
    look(GenerateSettings(server_url=served.url))


def test_a_server_that_samples_colder_than_asked_is_found(policy: Policy, served: ModelServer) -> None:
    """Its log-probabilities are right, and what it draws is not."""
    sampler, real = opened(policy, served), served.answer
    served.answer = lambda path, body: real(path, body | {"temperature": 0.3})  # type: ignore[method-assign]
    with pytest.raises(ActiveDPOError, match="samples otherwise than it is asked to") as caught:
        sampler.sample_unit(PROMPTS, sampling=sampling(max_new_tokens=30, stop_token_ids=frozenset({EOS})), seed=3)
    assert "--generation-config vllm" in said_by(caught.value)


def test_one_seed_for_all_responses_is_found(policy: Policy, served: ModelServer) -> None:
    def changed(path: str, body: dict[str, Any], answer: Any) -> Any:
        if "return_token_ids" in body:
            answer["choices"] = [answer["choices"][0] | {"index": place} for place in range(2)]
        return answer

    sampler = opened(policy, served)
    served.change = changed
    with pytest.raises(ActiveDPOError, match="gives the same 12 tokens twice"):
        sampler.sample_unit(PROMPTS[:1], sampling=sampling(max_new_tokens=12, stop_token_ids=frozenset()), seed=3)
