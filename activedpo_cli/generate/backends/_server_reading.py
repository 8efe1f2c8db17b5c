"""Asks a server how probable the tokens of a text are, in vLLM's way or, where it does not know that, in OpenAI's."""

import math
from collections.abc import Sequence
from typing import Any

from activedpo_cli.generate.backends._completions import CompletionsServer, RefusedCallError, ServerError

REFUSES_FIELD = (400, 422)
BY_PROMPT: dict[str, Any] = {"prompt_logprobs": 0, "max_tokens": 1}
BY_ECHO: dict[str, Any] = {"echo": True, "logprobs": 1, "max_tokens": 0}


def read_logps(server: CompletionsServer, model: str, texts: Sequence[Sequence[int]]) -> list[float]:
    """The server's log-probability of each token of some texts but their first, under one of its models.

    Raises ServerError where it gives none, or what is no number.
    """
    values = [value for ids in texts for value in _read(server, model, ids)]
    if not all(is_finite(value) for value in values):
        raise ServerError(
            f"{server.called} gives log-probabilities that are no numbers, for `{server.harmless(model)}`",
            hint="another number format may help: start it with `--dtype float32` or bfloat16, and look at its log",
        )
    return values


def _read(server: CompletionsServer, model: str, ids: Sequence[int]) -> list[Any]:
    said = "it leaves them out"
    for fields, found in ((BY_PROMPT, _of_prompt), (BY_ECHO, _of_echo)):
        try:
            answer = server.complete({**unshaped(model, ids), **fields}, raises=True)
        except RefusedCallError as refused:
            if refused.status not in REFUSES_FIELD:
                raise server.failure(refused) from None
            said = refused.message
            continue
        if (values := found(answer, ids)) is not None:
            return values
    raise ServerError(
        f"{server.called} can't tell how probable a text is, so nothing shows what it samples from",
        details=[f"asked for log-probabilities of a prompt's tokens, by `prompt_logprobs` and by `echo`: {said}"],
        hint="use a server that gives them, such as vLLM",
    )


def _of_prompt(answer: dict[str, Any], ids: Sequence[int]) -> list[Any] | None:
    """In vLLM's field: for each token of the prompt, the log-probabilities of some tokens, that one among them."""
    rows = _first_choice(answer).get("prompt_logprobs")
    if not isinstance(rows, list) or len(rows) != len(ids):
        return None
    entries = [row.get(str(token)) if isinstance(row, dict) else None for row, token in zip(rows, ids, strict=True)]
    return [entry.get("logprob") if isinstance(entry, dict) else math.nan for entry in entries[1:]]


def _of_echo(answer: dict[str, Any], ids: Sequence[int]) -> list[Any] | None:
    """In OpenAI's fields, where the prompt is repeated before what was sampled."""
    logprobs = _first_choice(answer).get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    return values[1 : len(ids)] if isinstance(values, list) and len(values) >= len(ids) else None


def _first_choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def unshaped(model: str, ids: Sequence[int]) -> dict[str, Any]:
    """A request about some tokens of which nothing shapes the probabilities."""
    return {
        "model": model,
        "prompt": [list(ids)],
        "n": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "seed": 0,
        "stop": [],
        "min_tokens": 0,
        "ignore_eos": False,
        "echo": False,
        "stream": False,
        "add_special_tokens": False,
        "skip_special_tokens": False,
    }


def is_id(value: Any) -> bool:
    """Whether a value is a number that a token may have."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a log-probability may be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
