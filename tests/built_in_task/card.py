"""Measure the built-in models and write their card."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from activedpo_cli.tiny.rule import score
from built_in_task.corpus import GENERATED_SHARE, Corpus
from built_in_task.language_model import LanguageModelPlan, held_out_loss, sample_responses
from built_in_task.reward_model import RewardModelPlan, reward

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

RESPONSES = 8
SHOWN = 10
HELD_OUT_DRAWN = 200


@dataclass(frozen=True)
class Measurements:
    """What was measured on saved weights; `samples` are prompt, response and the rule's score, not chosen."""

    parameters: int
    reward_parameters: int
    loss_drawn: float
    loss_files: float | None
    words_files: int
    responses: int
    prompts: int
    finished: float
    distinct_2: float
    dictionary_share: float | None
    rule_mean: float
    rule_spread: float
    rule_spread_within: float
    reward_spread_within: float
    agreement: float
    correlation: float
    samples: list[tuple[str, str, float]]


def measure(
    model: Any,
    tokenizer: "PreTrainedTokenizerFast",
    reward_model: Any,
    reward_tokenizer: "PreTrainedTokenizerFast",
    corpus: Corpus,
    prompts: Sequence[str],
    dictionary: Path | None,
    seed: int,
) -> Measurements:
    """Sample eight responses to each prompt and measure them; losses on text that was held out."""
    context = model.config.max_position_embeddings
    texts = sample_responses(model, tokenizer, prompts, RESPONSES, seed + 1)
    rules = [score([prompt] * RESPONSES, row) for prompt, row in zip(prompts, texts, strict=True)]
    rewards = [
        reward(reward_model, reward_tokenizer, [prompt] * RESPONSES, row)
        for prompt, row in zip(prompts, texts, strict=True)
    ]
    flat = [text for row in texts for text in row]
    all_rules = [value for row in rules for value in row]
    return Measurements(
        parameters=sum(weights.numel() for weights in model.parameters()),
        reward_parameters=sum(weights.numel() for weights in reward_model.parameters()),
        loss_drawn=held_out_loss(model, tokenizer, corpus.held_out_drawn(HELD_OUT_DRAWN), context),
        loss_files=held_out_loss(model, tokenizer, corpus.held_out, context) if corpus.held_out else None,
        words_files=corpus.words,
        responses=len(flat),
        prompts=len(prompts),
        finished=mean(text.rstrip().endswith((".", "!", "?", '"')) for text in flat),
        distinct_2=distinct_2(flat),
        dictionary_share=dictionary_share(flat, dictionary.read_text().split()) if dictionary else None,
        rule_mean=mean(all_rules),
        rule_spread=stdev(all_rules),
        rule_spread_within=mean(stdev(row) for row in rules),
        reward_spread_within=mean(stdev(row) for row in rewards),
        agreement=agreement(rules, rewards),
        correlation=_correlation(all_rules, [value for row in rewards for value in row]),
        samples=[(prompts[place], texts[place][0], rules[place][0]) for place in range(min(SHOWN, len(prompts)))],
    )


def distinct_2(texts: Sequence[str]) -> float:
    """Different word pairs over all word pairs, over all texts together."""
    found = [pair for text in texts for pair in pairwise(words(text))]
    return len(set(found)) / len(found)


def dictionary_share(texts: Sequence[str], dictionary: Sequence[str]) -> float:
    """The share of words that stand in the word list, as written or in lower case; the possessive 's is taken off."""
    known = set(dictionary)
    found = [word.removesuffix("'s") for text in texts for word in words(text)]
    return mean(word in known or word.lower() in known for word in found)


def words(text: str) -> list[str]:
    """Words of letters and apostrophes."""
    return re.findall(r"[A-Za-z]+(?:'[a-z]+)?", text)


def agreement(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """The share of pairs of one prompt, with different values in `first`, that both put in the same order."""
    same = [
        (a[i] > a[j]) == (b[i] > b[j])
        for a, b in zip(first, second, strict=True)
        for i, j in combinations(range(len(a)), 2)
        if a[i] != a[j]
    ]
    return mean(same)


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    from statistics import correlation

    return correlation(first, second)


def card(language_plan: LanguageModelPlan, reward_plan: RewardModelPlan, note: str, found: Measurements) -> str:
    """The card in Markdown."""
    tokens = language_plan.steps * language_plan.batch * language_plan.context
    files = "none were given" if found.loss_files is None else f"{found.loss_files:.3f} nats per token"
    share = "not measured" if found.dictionary_share is None else f"{100 * found.dictionary_share:.1f} %"
    rows = "\n".join(
        f"{place}. *{prompt}*{response}  \n   score {value:.2f}"
        for place, (prompt, response, value) in enumerate(found.samples, 1)
    )
    return CARD.format(
        found=found,
        language=language_plan,
        reward=reward_plan,
        tokens=tokens / 1e6,
        files=files,
        share=share,
        rows=rows,
        text=_text(found, note),
    )


def _text(found: Measurements, note: str) -> str:
    drawn = "stories put together by `tests/built_in_task/stories.py`"
    if found.loss_files is None:
        return drawn
    return (
        f"{GENERATED_SHARE:.0%} of the rows\n{drawn}, the others from\n{found.words_files:,} words of story files"
        + (f" ({note})" if note else "")
        + ", none of which ship"
    )


CARD = """# The models of the built-in task

Made for this project by `python -m built_in_task.build` in `tests`, to show and test the whole loop on any machine.
They write and judge very simple stories about small animals and children, in English. They know nothing and are
of no other use.

## Language model

A Llama of {found.parameters:,} parameters ({language.layers} layers, width {language.width}, context {language.context},
{language.vocabulary:,} byte-level pieces), trained from scratch for {language.steps:,} updates of {language.batch} rows of
{language.context} tokens, {tokens:.1f} million tokens in all: {text}. Saved in bfloat16.

| measured on {found.responses} responses to {found.prompts} prompts of its own (temperature 1, at most 64 tokens) | |
|---|---|
| held-out loss, stories put together here | {found.loss_drawn:.3f} nats per token |
| held-out loss, story files | {files} |
| responses that end like a sentence | {found.finished:.1%} |
| distinct-2 (different word pairs over all word pairs) | {found.distinct_2:.3f} |
| words found in a dictionary | {share} |
| the rule's score | mean {found.rule_mean:.3f}, standard deviation {found.rule_spread:.3f} |
| the same within a prompt | standard deviation {found.rule_spread_within:.3f} |

## Reward model

The language model's lowest {reward.layers} layers and one output, {found.reward_parameters:,} parameters, trained for
{reward.steps} updates of {reward.batch} preferences between the language model's own responses. The preferences were drawn
from Bradley and Terry's model with the score of `activedpo_cli/tiny/rule.py` divided by {reward.noise}.
None of the prompts that ship is among them; a few of these begin a story that the language model learnt from, by chance.

| measured on the same responses | |
|---|---|
| pairs of one prompt put in the rule's order | {found.agreement:.1%} |
| correlation with the rule's score | {found.correlation:.3f} |
| spread within a prompt | standard deviation {found.reward_spread_within:.2f} |

## Ten responses

The first response to each of the first ten prompts, not chosen; the prompt in italics, the rule's score below.

{rows}
"""
