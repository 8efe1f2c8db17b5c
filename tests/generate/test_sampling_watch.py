"""Tokens drawn otherwise than asked are found soon, and tokens drawn as asked never."""

import math

import pytest
import torch

from activedpo_cli.generate.backends._sampling_watch import SamplingWatch, ratios

VOCABULARY = 300


def drawn(count: int, seed: int, how: str = "", rounding: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits as sharp as a language model's, and tokens drawn from them, or from them as altered by `how`."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.5 * torch.randn(count, VOCABULARY, generator=generator)
    servers = logits + rounding * torch.randn(logits.shape, generator=generator)
    name, _, value = how.partition(" ")
    if name == "temperature":
        servers = servers / float(value)
    if name == "top_k":
        servers = servers.masked_fill(servers < servers.topk(int(value)).values[:, -1:], -math.inf)
    if name == "top_p":
        ordered, tokens = servers.softmax(-1).sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= float(value)
        servers = servers.masked_fill(torch.zeros_like(beyond).scatter(-1, tokens, beyond), -math.inf)
    return logits, torch.multinomial(servers.softmax(-1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("rounding", [0.0, 0.05])
def test_what_is_drawn_as_asked_is_never_found_fault_with(rounding: float) -> None:
    for seed in range(5):
        watch = SamplingWatch(1.0)
        assert [watch.look(*drawn(1000, 100 * seed + part, rounding=rounding)) for part in range(4)] == [None] * 4


@pytest.mark.parametrize(
    ("how", "tokens"),
    [
        ("temperature 0.01", 200),
        ("temperature 0.6", 200),
        ("temperature 0.8", 1000),
        ("temperature 2", 200),
        ("top_k 1", 200),
        ("top_k 20", 500),
        ("top_p 0.8", 500),
        ("top_p 0.95", 2000),
    ],
)
def test_what_is_drawn_otherwise_is_found(how: str, tokens: int) -> None:
    assert SamplingWatch(1.0).look(*drawn(tokens, 0, how, rounding=0.05)) is not None


def test_what_was_asked_for_is_found_where_the_temperature_was_another() -> None:
    logits, tokens = drawn(1000, 1)
    assert SamplingWatch(0.7).look(logits, tokens) == "temperature 1"
    assert SamplingWatch(0.7).look(*drawn(1000, 2, "temperature 0.7")) is None


def test_a_change_after_many_sound_tokens_is_found() -> None:
    watch = SamplingWatch(1.0)
    assert watch.look(*drawn(5000, 0)) is None
    assert watch.look(*drawn(300, 1, "temperature 0.6")) is not None


def test_every_other_way_to_draw_is_a_distribution() -> None:
    """The mean of q/p under p is 1, which is all that the bound on false alarms stands on; here summed over all tokens."""
    logits = 2.5 * torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    every = torch.arange(VOCABULARY)
    p = (logits[0] / 0.9).softmax(-1)
    for name, steps in ratios(logits.expand(VOCABULARY, -1), every, 0.9).items():
        assert (p * torch.tensor(steps, dtype=torch.float64).exp()).sum().item() == pytest.approx(1, abs=1e-6), name
