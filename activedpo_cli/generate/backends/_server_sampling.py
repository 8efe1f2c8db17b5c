"""Samples with a server that has been found to answer as the policy does: one request a prompt, and looks at what comes."""

import re
import threading
from collections.abc import Sequence
from typing import Any

from activedpo_cli.base.at_once import each_in_order
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.generate.backends._completions import KEPT, CompletionsServer, ServedModel, ServerError
from activedpo_cli.generate.backends._probe import (
    Comparison,
    judged,
    limits_of,
    own_base_logps,
    own_logits,
    own_logps,
)
from activedpo_cli.generate.backends._sampling_watch import SamplingWatch
from activedpo_cli.generate.backends._server_reading import is_finite, is_id, unshaped
from activedpo_cli.generate.backends.base import Policy, SampledResponse, SamplingSettings

SEEDS = 2**31
"""Seeds that every server takes."""
CHECKED_PROMPTS = 4
"""Prompts of a unit of which one response each is looked at again."""
FEW_TOKENS = 3
"""By how much more than texts a few sampled tokens may differ from the model in memory."""
MOST_CALLS = 256
"""Calls at once; no engine's batches are larger by default."""
CHANCE = -30.0
"""The log-probability below which nobody draws the same response twice."""
TOKEN_NAME = re.compile(r"token_id:(\d+)")


class ServerSampler:
    """A server that has been found to answer as the policy does."""

    def __init__(
        self,
        server: CompletionsServer,
        policy: Policy,
        base: ServedModel,
        name: str,
        probe: Comparison,
        ending: threading.Event,
    ) -> None:
        self._server, self._policy, self._base, self._name = server, policy, base, name
        self._probe, self._ending = probe, ending
        self._tolerance = limits_of(policy.model).tolerance
        self._watches: dict[float, SamplingWatch] = {}
        self._rows = len(policy.model.get_input_embeddings().weight)

    def facts(self) -> dict[str, Any]:
        """Names, where tokens come from, and how far the server was from the policy in memory, in nats per token."""
        share = None if self._policy.adapter is None else self._probe.share()
        return {
            "server_model": self._server.harmless(self._base.name),
            "adapter": None if self._policy.adapter is None else self._name,
            "token_ids": "from the server",
            "probe_tokens": len(self._probe.served),
            "tolerance": self._tolerance,
            "mean_difference": self._probe.mean,
            "worst_difference": self._probe.worst,
            "adapter_effect": self._probe.effect,
            "adapter_share": None if share is None else share.value,
            "rounding": self._probe.rounding,
        }

    def close(self) -> None:
        """Do nothing: a server that others started goes on."""

    def sample_unit(
        self, prompts_token_ids: Sequence[Sequence[int]], *, sampling: SamplingSettings, seed: int
    ) -> list[list[SampledResponse]]:
        """`num_responses` responses to each prompt, all prompts asked at once, each with a seed of its own.

        Raises ServerError for anything that is no such response, and where what was sampled has other probabilities than
        the policy gives it.
        """
        self._require_room(prompts_token_ids, sampling)
        self._ending.clear()

        def ask(place: int) -> tuple[list[SampledResponse], list[float | None]]:
            body = self._body(prompts_token_ids[place], sampling, derive_seed(seed, "server", place) % SEEDS)
            return self._responses(self._server.complete(body), prompts_token_ids[place], sampling)

        places = range(len(prompts_token_ids))
        found = list(each_in_order(ask, places, MOST_CALLS, ending=self._ending, give_up=lambda: None))
        if (sampling.top_k, sampling.top_p) == (0, 1.0):
            checked = prompts_token_ids[:CHECKED_PROMPTS]
            if sampling.temperature == 1:
                self._look_again(checked, found[:CHECKED_PROMPTS])
            self._watch(checked, [responses for responses, _ in found[:CHECKED_PROMPTS]], sampling.temperature)
        return [responses for responses, _ in found]

    def _require_room(self, prompts: Sequence[Sequence[int]], sampling: SamplingSettings) -> None:
        needed = max(len(prompt) for prompt in prompts) + sampling.max_new_tokens
        if self._base.longest is not None and needed > self._base.longest:
            raise ServerError(
                f"{self._server.called} reads {self._base.longest} tokens at most, and {needed} are needed",
                details=[
                    f"{needed - sampling.max_new_tokens} of a prompt and {sampling.max_new_tokens} of a response",
                    KEPT,
                ],
                hint=f"start it with `--max-model-len {needed}` or more (of `--backend vllm`: `--vllm-args`), and give "
                "the same command again",
            )

    def _body(self, prompt: Sequence[int], sampling: SamplingSettings, seed: int) -> dict[str, Any]:
        """One prompt's request, with every field that a server could have a default for."""
        return {
            **unshaped(self._name, prompt),
            "n": sampling.num_responses,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,  # which switches it off everywhere; 0 does in new servers alone
            "seed": seed,
            "stop_token_ids": sorted(sampling.stop_token_ids),
            "logprobs": 1,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    def _responses(
        self, answer: dict[str, Any], prompt: Sequence[int], sampling: SamplingSettings
    ) -> tuple[list[SampledResponse], list[float | None]]:
        """The responses in an answer in their order, and the log-probabilities that came with the first of them."""
        choices = answer.get("choices")
        choices = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        if len(choices) != sampling.num_responses:
            raise self._unusable(
                f"gives {len(choices)} responses to a prompt where {sampling.num_responses} were asked for"
            )
        if all(isinstance(choice.get("index"), int) for choice in choices):
            choices.sort(key=lambda choice: choice["index"])
        read = choices[0].get("prompt_token_ids")
        if isinstance(read, list) and read != list(prompt):
            raise self._unusable(
                f"reads {len(read)} other tokens than the {len(prompt)} of the prompt that it was sent"
            )
        responses = [self._response(choice, sampling) for choice in choices]
        if (sampling.temperature, sampling.top_k, sampling.top_p) == (1.0, 0, 1.0):
            self._require_own_randomness(responses, choices)
        logprobs = choices[0].get("logprobs")
        values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
        return responses, list(values) if isinstance(values, list) else []

    def _require_own_randomness(self, responses: Sequence[SampledResponse], choices: Sequence[dict[str, Any]]) -> None:
        """Refuse a response that came twice though it is too improbable for that."""
        seen: set[tuple[int, ...]] = set()
        for response, choice in zip(responses, choices, strict=True):
            logprobs, token_ids = choice.get("logprobs"), tuple(response.token_ids)
            values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
            values = [value for value in values if is_finite(value)] if isinstance(values, list) else []
            if token_ids in seen and sum(values[: len(token_ids)]) < CHANCE:
                raise self._unusable(
                    f"gives the same {len(token_ids)} tokens twice where {len(responses)} responses were asked for",
                    "by its own log-probabilities that does not happen by chance: it draws them with one seed, or none",
                )
            seen.add(token_ids)

    def _watch(
        self, prompts: Sequence[Sequence[int]], found: Sequence[Sequence[SampledResponse]], temperature: float
    ) -> None:
        """Raise ServerError where tokens were drawn colder, hotter or from fewer than was asked for."""
        watch = self._watches.setdefault(temperature, SamplingWatch(temperature))
        for prompt, responses in zip(prompts, found, strict=True):
            for logits, targets in own_logits(self._policy.model, prompt, responses[0].token_ids):
                if other := watch.look(logits, targets):
                    raise self._unusable(
                        f"samples otherwise than it is asked to: its tokens fit {other} rather than temperature "
                        f"{temperature:g} without a cut",
                        hint="see which defaults it was started with (vLLM: `--generation-config vllm`), and whether it "
                        "knows the fields that it is sent",
                    )

    def _response(self, choice: dict[str, Any], sampling: SamplingSettings) -> SampledResponse:
        """The tokens up to the first that ends a response; whatever follows that is no part of it."""
        token_ids, reason = self._token_ids(choice), choice.get("finish_reason")
        stops, stop_reason = sampling.stop_token_ids, choice.get("stop_reason")
        if reason == "stop" and not stops.intersection(token_ids) and is_id(stop_reason) and stop_reason in stops:
            token_ids = [*token_ids, stop_reason]
        place = next((place for place, token_id in enumerate(token_ids) if token_id in stops), None)
        if place is not None and place < sampling.max_new_tokens:
            return SampledResponse(token_ids=token_ids[: place + 1], finish_reason="stop")
        if reason == "length" and len(token_ids) == sampling.max_new_tokens:
            return SampledResponse(token_ids=token_ids, finish_reason="length")
        shown = self._server.harmless(reason)
        raise self._unusable(
            f"ends a response after {len(token_ids)} tokens with the reason {shown}, at none of the tokens that end one",
            f"{sampling.max_new_tokens} tokens were asked for; the tokens that end one: "
            f"{', '.join(map(str, sorted(stops))) or 'none'}",
        )

    def _token_ids(self, choice: dict[str, Any]) -> list[int]:
        """The tokens of a response, as ids or as names of ids; text alone is refused."""
        token_ids = choice.get("token_ids")
        if not isinstance(token_ids, list):
            logprobs = choice.get("logprobs")
            tokens = logprobs.get("tokens") if isinstance(logprobs, dict) else None
            named = [TOKEN_NAME.fullmatch(str(token)) for token in tokens] if isinstance(tokens, list) else [None]
            if None in named:
                raise ServerError(
                    f"{self._server.called} gives text without the tokens that it sampled",
                    details=["the same text has other tokens when it is encoded again, so nothing is guessed"],
                    hint="use a server that gives them (vLLM 0.10.2 or later does), or sample there by hand and bring the "
                    "texts with `generate --responses FILE`",
                )
            token_ids = [int(match[1]) for match in named if match]
        beyond = next((token_id for token_id in token_ids if not is_id(token_id) or token_id >= self._rows), None)
        if beyond is not None:
            raise self._unusable(f"samples token {self._server.harmless(beyond)}, and the model has {self._rows}")
        return list(token_ids)

    def _look_again(
        self, prompts: Sequence[Sequence[int]], found: Sequence[tuple[list[SampledResponse], list[float | None]]]
    ) -> None:
        """Compare the probabilities with which a few responses were sampled with those that the policy gives them."""
        served: list[float] = []
        kept: list[list[int]] = []
        for responses, values in found:
            token_ids = responses[0].token_ids
            token_ids = token_ids[: len(values)] if len(values) == len(token_ids) - 1 else token_ids
            served += self._finite(values[: len(token_ids)], len(token_ids))
            kept.append(token_ids)
        rows = [(prompt, ids) for prompt, ids in zip(prompts, kept, strict=True) if ids]
        if not rows:
            return
        asked, given = [prompt for prompt, _ in rows], [ids for _, ids in rows]
        own = own_logps(self._policy.model, asked, given)
        base = own if self._policy.adapter is None else own_base_logps(self._policy.model, asked, given)
        comparison = Comparison(served, own, base, rounding=self._probe.rounding)
        if judged(comparison, FEW_TOKENS * self._tolerance) not in ("fits", "can't be told"):
            raise self._unusable(
                f"has sampled from another model than `{self._name}`",
                f"its log-probabilities of {len(served)} tokens that it sampled differ by {comparison.mean:.3g} nats from "
                f"the policy's in the mean, of which {FEW_TOKENS * self._tolerance:g} are allowed",
                "when it was asked about fixed texts before, it answered as the policy does",
                hint="see whether it was started again, or whether several servers answer at this address; then give the "
                "the same command again",
            )

    def _finite(self, values: Sequence[Any], count: int) -> list[float]:
        if len(values) != count:
            raise self._unusable(f"gives {len(values)} log-probabilities with the {count} tokens of a response")
        if not all(is_finite(value) for value in values):
            raise self._unusable("gives log-probabilities that are no numbers")
        return [float(value) for value in values]

    def _unusable(self, what: str, *details: str, hint: str | None = None) -> ServerError:
        return ServerError(
            f"{self._server.called} {what}",
            details=[*details, KEPT],
            hint=hint or "see whether it speaks OpenAI's protocol for completions as vLLM does, and what its log says",
        )
