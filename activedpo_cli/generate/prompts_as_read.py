"""A prompt is what the model reads, its tokens: compared with earlier work of the run, and with other prompts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from activedpo_cli.base.errors import InvalidDataError, RefusedError, naming
from activedpo_cli.base.records import Prompt, PromptText, Response, prompt_as_text
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import Context
from activedpo_cli.generate.sampling import EncodedPrompt
from activedpo_cli.prompts._collect import prompt_key

RESPONSES = "responses-*.jsonl"
NAMED = 3
"""Repeated prompts that a message names."""


def refuse_repetition(config: Config, prompt_id: str) -> None:
    """Raise InvalidDataError for a prompt that repeats another, where repetitions are errors."""
    if config.prompts.duplicates == "error":
        raise InvalidDataError(
            f"the model reads prompt `{prompt_id}` as it reads another one, of the pool or held out",
            details=["they differ only in what the chat template or the tokenizer leaves out"],
            hint="make another run from prompts without it, or with `--set prompts.duplicates=drop`",
        )


def refuse_repetitions(config: Config, prompts: Sequence[Prompt], encode: Callable[[Prompt], list[int]]) -> None:
    """The same of all prompts of a run, whichever are drawn, so that no label is bought before it is said."""
    if config.prompts.duplicates != "error":
        return
    known: set[tuple[int, ...]] = set()
    for prompt in prompts:
        tokens = tuple(encode(prompt))
        if tokens in known:
            refuse_repetition(config, prompt.prompt_id)
        known.add(tokens)


def repeated_prompts(prompts: Iterable[EncodedPrompt]) -> dict[str, str]:
    """By id each prompt that the model reads as it reads an earlier one of these, with the id of the first such."""
    first: dict[tuple[int, ...], str] = {}
    return {
        prompt.prompt_id: earlier
        for prompt in prompts
        if (earlier := first.setdefault(tuple(prompt.token_ids), prompt.prompt_id)) != prompt.prompt_id
    }


class PromptsAsRead:
    """The prompts of a run by what the model reads, so that what a file says of a prompt is found however it is spelled.

    Attributes:
        tokens: What the model reads of each prompt, by its id.
        repeated: Prompts that are read as an earlier one, and these, by id; held-out ones and others apart.
        met: Those of `repeated` that the file has, once it was read.

    """

    def __init__(self, prompts: Sequence[Prompt], encode: Callable[[PromptText], list[int]]) -> None:
        self._encode = encode
        self._prompts = {prompt.prompt_id: prompt for prompt in prompts}
        self._by_key = {prompt_key(prompt.prompt): prompt for prompt in prompts}
        self._by_words: dict[tuple[str, ...], list[Prompt]] = {}
        self.tokens: dict[str, list[int]] = {}
        for prompt in sorted(prompts, key=lambda prompt: prompt.split):  # held-out ones first, which no label is for
            with naming(f"prompt `{prompt.prompt_id}`"):
                self.tokens[prompt.prompt_id] = encode(prompt.prompt)
            self._by_words.setdefault(_words(prompt.prompt), []).append(prompt)
        self.repeated: dict[str, str] = {}
        for split in ("train", "eval"):
            asked = [
                EncodedPrompt(name, self.tokens[name]) for name, row in self._prompts.items() if row.split == split
            ]
            self.repeated |= repeated_prompts(asked)
        self.met: dict[str, str] = {}

    def first(self, prompt: PromptText) -> PromptText:
        """The first prompt of the run that the model reads as this one; itself where there is none."""
        known = self._by_key.get(prompt_key(prompt)) or self._spelled_otherwise(prompt)
        if known is None:
            return prompt
        earlier = self.repeated.get(known.prompt_id)
        if earlier is None:
            return known.prompt
        self.met[known.prompt_id] = earlier
        return self._prompts[earlier].prompt

    def met_of(self, split: str) -> dict[str, str]:
        """Those of `met` that are of the pool (`train`), or held out (`eval`)."""
        return {name: earlier for name, earlier in self.met.items() if self._prompts[name].split == split}

    def _spelled_otherwise(self, prompt: PromptText) -> Prompt | None:
        """The prompt of the run whose tokens these are; asked only where the words are the same, since files are long."""
        alike = self._by_words.get(_words(prompt))
        if not alike:
            return None
        tokens = self._encode(prompt)
        return next((one for one in alike if self.tokens[one.prompt_id] == tokens), None)


def _words(prompt: PromptText) -> tuple[str, ...]:
    return tuple(prompt_as_text(prompt).split())


def named_repetitions(repeated: Mapping[str, str], what: str) -> str:
    """`the model reads 2 held-out prompts as it reads others: `p7` as `p3`, …`; `what` is for one of them."""
    shown = [f"`{prompt_id}` as `{earlier}`" for prompt_id, earlier in list(repeated.items())[:NAMED]]
    more = ["…"] if len(repeated) > NAMED else []
    words = what if len(repeated) == 1 else what.replace("prompt", "prompts")
    return f"the model reads {len(repeated)} {words} as it reads others: {', '.join(shown + more)}"


def refuse_other_prompts(context: Context, prompts: Sequence[EncodedPrompt]) -> None:
    """Raise RefusedError where responses that were begun answer other prompts, or prompts that are read otherwise now."""
    folder = context.folder
    stored = {
        row.prompt_id: row.prompt_token_ids
        for name in folder.names(RESPONSES)
        for row in folder.read_rows(name, Response)
    }
    now = {prompt.prompt_id: prompt.token_ids for prompt in prompts}
    others = [prompt_id for prompt_id, tokens in stored.items() if now.get(prompt_id) != tokens]
    if others:
        raise RefusedError(
            f"the responses begun in `{folder.path}` answer prompts that are read otherwise now, first `{others[0]}`",
            details=["the prompts were drawn or rendered by another version of the program or of a library"],
            hint=f"{context.run.next_command('generate', context.iteration)} --force",
        )


def tell_of_other_rendering(context: Context, encoded: Callable[[Prompt], list[int]]) -> None:
    """Warn where prompts of the iteration before are read otherwise now, by its first responses."""
    earlier = context.run.stage("generate", context.iteration - 1) if context.iteration > 1 else None
    name = next(iter(earlier.names(RESPONSES)), None) if earlier else None
    if earlier is None or name is None:
        return
    before = {row.prompt_id: row.prompt_token_ids for row in earlier.read_rows(name, Response)}
    others = [
        prompt.prompt_id
        for prompt in context.run.prompts("train")
        if prompt.prompt_id in before and encoded(prompt) != before[prompt.prompt_id]
    ]
    if others:
        context.progress.warn(
            f"prompts are read otherwise than in iteration {context.iteration - 1}, first `{others[0]}`: they were rendered "
            "by another version of the program or of a library"
        )


def started_answers(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """How many prompts begin the answer that the response goes on with, as part of a summary; nothing where none does."""
    count = sum(isinstance(prompt.prompt, list) and prompt.prompt[-1]["role"] == "assistant" for prompt in prompts)
    return {"started_answers": count} if count else {}
