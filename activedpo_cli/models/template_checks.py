"""What a chat template makes of prompts, compared with what it makes of prompts with an answer behind them.

Nothing here changes a prompt. Each check looks at one conversation and says what a run with that template should know;
`CHECKS` lists them for whoever shows them all.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from activedpo_cli.models.chat_template import (
    TEMPLATE_ERRORS,
    Messages,
    around_answer,
    is_started,
    missing_header,
    render_chat,
    render_prompt,
)
from activedpo_cli.models.encoding import ids_behind_answer, text_with_tokens

SHOWN = 80
WITHOUT_THINKING = {"enable_thinking": False}
"""The argument by which templates of models that think (Qwen3, SmolLM3) leave the place for thoughts empty."""


@dataclass(frozen=True)
class Finding:
    """What a template does that a run should know; `do` is the way out, empty where nothing has to be done.

    With an `is_wrong` one, responses would not stand where the model was taught to answer.
    """

    says: str
    do: str = ""
    is_wrong: bool = False


@dataclass(frozen=True)
class Rendered:
    """A template with its tokenizer, and how a run renders prompts with it; `stops` are the ids that end a response."""

    tokenizer: PreTrainedTokenizerBase
    date: str
    template_kwargs: Mapping[str, Any]
    stops: Collection[int] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `render_chat`."""
        return {"date": self.date, "arguments": self.template_kwargs}


Check = Callable[[Rendered, Messages], Finding | None]


def opens_answers(rendered: Rendered, messages: Messages) -> Finding | None:
    """Whether the template writes the header of an answer behind a prompt, as it does before an answer."""
    if is_started(messages):
        return None
    tokenizer, options = rendered.tokenizer, rendered.options
    opened, closed = (render_chat(tokenizer, messages, opened=opened, **options) for opened in (True, False))
    if opened != closed:
        return None
    header = missing_header(tokenizer, messages, **options)
    if header:
        return Finding(
            f"the chat template opens no answer; {_end(header)}, which it writes before one, is put behind each prompt"
        )
    found = around_answer(tokenizer, messages, **options)
    if found is None:
        return Finding("the chat template opens no answer and shows none, so what it writes before one is not known")
    if not found[0].startswith(closed):
        ends = _where_they_part(closed, found[0])
        return Finding(
            "the chat template opens no answer, and writes a prompt otherwise once an answer stands behind it",
            f"it ends with {ends[0]}, and before an answer with {ends[1]}: correct the template, or give "
            "plain text with `--set prompts.chat_template=never`",
            is_wrong=True,
        )
    return None


def keeps_prompts(rendered: Rendered, messages: Messages) -> Finding | None:
    """Whether a prompt reads the same before it is answered and with the answer behind it."""
    both = _prompt_and_context(rendered.tokenizer, messages, rendered.options)
    if both is None or _is_kept(*both, messages):
        return None
    prompt, before = both
    now, then = _where_they_part(prompt, before)
    if is_started(messages):
        line = f"the chat template writes an answer that a prompt begins as {then}, and opens it with {now}"
    elif before.startswith(prompt):
        added = _end(before[len(prompt) :])
        line = f"the chat template writes {added} before an answer that it is given, not before one that is sampled"
    else:
        line = f"the chat template ends a prompt with {now}, and with {then} once an answer stands behind it"
    return Finding(line, _without_thinking(rendered, messages))


def joins_given_answers(rendered: Rendered, messages: Messages) -> Finding | None:
    """Whether the template writes white space between a prompt and an answer, which answers from a file then lack."""
    both = _prompt_and_context(rendered.tokenizer, messages, rendered.options)
    if both is None or is_started(messages) or not both[1].startswith(both[0]):
        return None
    added = both[1][len(both[0]) :]
    if not added or added.strip():
        return None
    return Finding(
        f"the chat template writes {added!r} between a prompt and an answer, and answers from a file are read without it",
        "begin each with it where the model is used to it",
    )


def shows_texts(rendered: Rendered, messages: Messages) -> Finding | None:
    """Whether the text of each message of a user or system stands in what the template writes, white space aside."""
    written = "".join(render_chat(rendered.tokenizer, messages, opened=False, **rendered.options).split())
    for number, message in enumerate(messages, start=1):
        if message["role"] != "assistant" and "".join(message["content"].split()) not in written:
            return Finding(
                f"the chat template leaves out the text of message {number}, of the {message['role']}",
                "it may want lists of parts, or know no such role: correct the template, put the text into another message, "
                "or give plain text with `--set prompts.chat_template=never`",
                is_wrong=True,
            )
    return None


def ends_turns(rendered: Rendered, messages: Messages) -> Finding | None:
    """Whether sampling stops at the token by which the template ends an answer."""
    tokenizer = rendered.tokenizer
    behind = ids_behind_answer(
        tokenizer, messages, template_date=rendered.date, template_kwargs=rendered.template_kwargs
    )
    pieces = [
        (token_id, text) for token_id, text in text_with_tokens(tokenizer, behind) if text.strip(" \n\u2581\u010a")
    ]
    if not pieces or pieces[0][0] in rendered.stops:
        return None
    token_id, text = pieces[0]
    if token_id not in _added(tokenizer):
        return Finding(
            f"the chat template ends an answer with the text {''.join(text for _, text in pieces)[:SHOWN]!r}, at which no "
            "sampling stops"
        )
    return Finding(
        f"the chat template ends an answer with `{text}`, and sampling does not stop there",
        f"--set generate.stop_token_ids=[{token_id}]",
    )


def keeps_answers(rendered: Rendered, messages: Messages) -> Finding | None:
    """Whether an answer comes out of the template as it is, white space around it and thoughts in it too."""
    if is_started(messages):
        return None
    for answer, what in (("  Xanswerx \n", "white space around"), ("<think>\nA.\n</think>\n\nXanswerx", "thoughts in")):
        whole = [*messages, {"role": "assistant", "content": answer}]
        if answer not in render_chat(rendered.tokenizer, whole, opened=False, **rendered.options):
            return Finding(
                f"the chat template alters {what} answers, which changes them for whoever trains on messages"
            )
    return None


CHECKS: Mapping[str, Check] = {
    "texts are shown": shows_texts,
    "opens answers": opens_answers,
    "prompts stay": keeps_prompts,
    "answers join": joins_given_answers,
    "turns end": ends_turns,
    "answers stay": keeps_answers,
}
"""Every check by a short name; each raises what the template raises for the conversation, see `TEMPLATE_ERRORS`."""


def findings(rendered: Rendered, messages: Messages, *names: str) -> list[Finding]:
    """What the checks of these names, or all, say about a conversation; nothing of one that the template refuses."""
    try:
        said = [CHECKS[name](rendered, messages) for name in names or CHECKS]
    except TEMPLATE_ERRORS:
        return []
    return [finding for finding in said if finding is not None]


def _prompt_and_context(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, options: Mapping[str, Any]
) -> tuple[str, str] | None:
    """A conversation as it is opened for an answer, with what was begun of it, and what the template writes before one."""
    found = around_answer(tokenizer, messages, **options)
    if found is None:
        return None
    if is_started(messages):
        return render_prompt(tokenizer, messages[:-1], **options) + messages[-1]["content"], found[0]
    return render_prompt(tokenizer, messages, **options), found[0]


def _is_kept(prompt: str, before: str, messages: Messages) -> bool:
    """Whether the two agree but for white space where the answer begins."""
    if is_started(messages):
        return "".join(prompt.split()) == "".join(before.split())
    return before.startswith(prompt) and not before[len(prompt) :].strip()


def _without_thinking(rendered: Rendered, messages: Messages) -> str:
    """The setting by which the prompt is what stands before an answer, where a template has it."""
    if "enable_thinking" not in rendered.tokenizer.get_chat_template():
        return ""
    given = rendered.options
    options = {**given, "arguments": {**given["arguments"], **WITHOUT_THINKING}}
    both = _prompt_and_context(rendered.tokenizer, messages, options)
    is_mended = both is not None and _is_kept(*both, messages)
    return "--set prompts.template_kwargs=[enable_thinking=false]" if is_mended else ""


def _added(tokenizer: PreTrainedTokenizerBase) -> Collection[int]:
    return tokenizer.added_tokens_decoder.keys()


def _where_they_part(one: str, other: str) -> tuple[str, str]:
    """Two texts from a little before the place where they differ first."""
    parting = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(parting - SHOWN // 4, 0)
    first, second = (repr(("…" if start else "") + text[start : start + SHOWN]) for text in (one, other))
    return first, second


def _end(text: str) -> str:
    return repr(text if len(text) <= SHOWN else "…" + text[-SHOWN:])
