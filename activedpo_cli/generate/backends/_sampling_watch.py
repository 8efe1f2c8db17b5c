"""Watches whether tokens were drawn as asked: from the policy's own probabilities at the temperature that was asked for.

A server that takes no notice of a field, or has defaults of its own, samples colder or cuts the tail off, and its
responses look well. For each of a few other ways q to draw, S_q adds log q(token) − log p(token) over all tokens and never
falls below 0 (Page's CUSUM). Under p each q/p has mean 1, so that an S_q comes to `ALARM` by chance once in e^`ALARM` tokens
or so; under q it grows by the divergence of q from p with every token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int

ALARM = 25.0
"""Nats; e^25 tokens are 7e10."""
COLDER_AND_HOTTER = (0.25, 0.6, 0.8, 1.25, 2.0)
TOP_K, TOP_P = (1, 20, 50), (0.8, 0.9, 0.95)
CANDIDATES = 1024
"""Likeliest tokens among which the nucleus of top_p is looked for."""
UNCUT = 0.01
"""The share of p that stays in a cut q, so that one token at its edge, where roundings decide, does not rule it out."""


class SamplingWatch:
    """Looks at tokens that were drawn at one temperature without any cut."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._sums: dict[str, float] = {}

    def look(self, logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, " tokens"]) -> str | None:
        """Take further tokens in; the other way in which they were drawn, None as far as is known."""
        for name, steps in ratios(logits, targets, self._temperature).items():
            total = self._sums.get(name, 0.0)
            for step in steps:
                total = max(0.0, total + step)
            self._sums[name] = total
        name = max(self._sums, key=self._sums.__getitem__)
        return name if self._sums[name] > ALARM else None


def ratios(
    logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, " tokens"], temperature: float
) -> dict[str, Sequence[float]]:
    """Log q(token) − log p(token) of each token, by the names of other ways to draw than p, the softmax at `temperature`."""
    asked = (logits / temperature).log_softmax(-1)
    own = asked.gather(-1, targets[:, None]).squeeze(-1)
    found: dict[str, Sequence[float]] = {}
    others = {temperature * factor for factor in COLDER_AND_HOTTER} | {1.0}
    for other in sorted(others - {temperature}):
        drawn = (logits / other).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
        found[f"temperature {other:g}"] = (drawn - own).tolist()
    likeliest, tokens = asked.topk(min(CANDIDATES, asked.shape[-1]), dim=-1)
    mass = likeliest.exp().cumsum(-1)
    place = torch.where((tokens == targets[:, None]).any(-1), (tokens == targets[:, None]).int().argmax(-1), CANDIDATES)
    for count in TOP_K:
        found[f"top_k {count}"] = _cut(place < count, mass[:, min(count, mass.shape[-1]) - 1])
    for share in TOP_P:
        last = (
            (mass < share).sum(-1).clamp(max=mass.shape[-1] - 1)
        )  # the first that makes the mass large enough belongs to it
        found[f"top_p {share:g}"] = _cut(place <= last, mass.gather(-1, last[:, None]).squeeze(-1))
    return found


def _cut(is_inside: Tensor, mass: Tensor) -> list[float]:
    inside = is_inside / mass.clamp(max=1.0)
    return ((1 - UNCUT) * inside + UNCUT).log().tolist()
