"""Comparisons made by hand, for tests of oracles and of labelling."""

from activedpo_cli.base.records import PromptText, Response, pair_id
from activedpo_cli.oracles.base import Comparison


def make_response(prompt_number: int, index: int, text: str, scores: dict[str, float] | None = None) -> Response:
    prompt_id = f"p{prompt_number:06d}"
    return Response(
        response_id=f"{prompt_id}/i001/r{index}",
        prompt_id=prompt_id,
        prompt_token_ids=[],
        token_ids=[],
        text=text,
        finish_reason="stop",
        scores=scores,
    )


def make_comparison(
    prompt_number: int,
    text_a: str = "first",
    text_b: str = "second",
    *,
    prompt: PromptText = "Which one?",
    scores_a: dict[str, float] | None = None,
    scores_b: dict[str, float] | None = None,
) -> Comparison:
    response_a = make_response(prompt_number, 0, text_a, scores_a)
    response_b = make_response(prompt_number, 1, text_b, scores_b)
    return Comparison(pair_id(response_a.response_id, response_b.response_id), prompt, response_a, response_b)


def seed_of_pair(pair: str) -> int:
    """Not the project's own derivation; any function of the id does."""
    return sum(ord(character) * 31**place for place, character in enumerate(pair))
