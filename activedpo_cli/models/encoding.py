"""The only place where text becomes the policy's tokens, and these text; each text is encoded once, its ids kept.

A response is a continuation: its tokens stand after the prompt's, nothing is joined and encoded again. Tokenizers that
put a space before every text (SentencePiece) would add or lose one at that seam, so a response is encoded and decoded
behind an anchor text that is taken off again.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.records import PromptText
from activedpo_cli.base.template_date import TEMPLATE_DATE
from activedpo_cli.models.chat_template import (
    NO_ARGUMENTS,
    TEMPLATE_ERRORS,
    Messages,
    around_answer,
    render_prompt,
)
from activedpo_cli.models.loading_errors import refusing_panics
from activedpo_cli.models.vocabulary import require_readable

ANCHORS = ("\n", "a", "1")
EXAMPLE = ({"role": "user", "content": "Hello"},)
"""A conversation that every chat template takes."""


@dataclass(frozen=True)
class AnswerEnd:
    """How an answer ends: `token_id` is put behind one that does not end with one of `known`, at which sampling stops.

    A token of ordinary text is none of these, though sampling may be set to stop at it: it may be the text's last.
    """

    token_id: int
    known: frozenset[int]


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptText,
    *,
    chat_template: str,
    template_date: str = TEMPLATE_DATE,
    template_kwargs: Mapping[str, Any] = NO_ARGUMENTS,
) -> list[int]:
    """The ids that the model sees before it answers; never ends in an EOS that the tokenizer added by itself.

    Messages, and with `chat_template` auto plain text too, go through the tokenizer's chat template, opened for an
    answer, or for the rest of one that the last message begins. A template that asks for the time reads `template_date`,
    and `template_kwargs` are its further arguments. Raises InvalidDataError for messages without a template to render
    them, for a prompt that the template refuses, for one of no tokens, and for a token that the model can't read.
    """
    if isinstance(prompt, list) and (chat_template == "never" or not tokenizer.chat_template):
        raise InvalidDataError(
            "a prompt is a list of messages, and there is no chat template to render it",
            hint="give plain-text prompts, or a model with a chat template, and leave prompts.chat_template at auto",
        )
    if renders_plain_text(tokenizer, chat_template):
        rendered = _rendered(tokenizer, as_messages(prompt), template_date, template_kwargs)
        token_ids = _plain_ids(tokenizer, rendered)
    else:
        token_ids = _without_added_eos(tokenizer, str(prompt))
    require_readable(tokenizer, token_ids, prompt)
    if not token_ids:
        raise InvalidDataError("a prompt has no tokens", hint="remove empty prompts")
    return token_ids


def renders_plain_text(tokenizer: PreTrainedTokenizerBase, chat_template: str) -> bool:
    """Whether a plain prompt becomes the message of a user in the tokenizer's chat template, as messages always do."""
    return chat_template != "never" and bool(tokenizer.chat_template)


def as_messages(prompt: PromptText) -> list[dict[str, str]]:
    """The prompt as a chat template is given it: a text is the message of a user."""
    return prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]


def encode_response_text(
    tokenizer: PreTrainedTokenizerBase, text: str, *, append_eos: bool = False, end: AnswerEnd | None = None
) -> list[int]:
    """The ids of a response made elsewhere, as they continue any prompt: no BOS, no added space.

    An end is appended only if asked for, and only where the text does not spell out one: `end`, see `answer_end`, or the
    EOS. `decode_response` gives the text back, without special tokens that it spells out.
    """
    token_ids = _continuation_ids(tokenizer, text)
    if append_eos:
        end = _eos(tokenizer, None) if end is None else end
        if end is None:
            raise InvalidDataError("an end-of-text token was asked for, and the tokenizer has none")
        token_ids = ended(tokenizer, token_ids, end)
    require_readable(tokenizer, token_ids, text)
    return token_ids


def ended(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], end: AnswerEnd) -> list[int]:
    """The ids with an end behind them, unless they have one; white space behind that is taken off.

    Sampling stops at an end, so that nothing ever follows one.
    """
    ends = {end.token_id, *end.known}
    written = list(token_ids)
    while written and written[-1] not in ends and not decode_response(tokenizer, written[-1:]).strip():
        written.pop()
    return written if written and written[-1] in ends else [*token_ids, end.token_id]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text that stands alone, with what the tokenizer puts before it and without an EOS that it adds."""
    token_ids = _without_added_eos(tokenizer, text)
    require_readable(tokenizer, token_ids, text)
    return token_ids


def answer_end(
    tokenizer: PreTrainedTokenizerBase,
    generation_config: GenerationConfig | None,
    extra: Collection[int],
    *,
    chat_template: str,
    template_date: str = TEMPLATE_DATE,
    template_kwargs: Mapping[str, Any] = NO_ARGUMENTS,
) -> AnswerEnd | None:
    """What ends an answer: the chat template's end of a turn where sampling stops at it, else the EOS.

    None where there is neither. `chat_template` is `never` where prompts are plain text, and `extra` the setting
    `generate.stop_token_ids`, see `stop_token_ids`.
    """
    stops = stop_token_ids(tokenizer, generation_config, extra)
    added = frozenset(extra) & tokenizer.added_tokens_decoder.keys()
    known = stop_token_ids(tokenizer, generation_config) | added
    if not renders_plain_text(tokenizer, chat_template):
        return _eos(tokenizer, known)
    behind = ids_behind_answer(tokenizer, EXAMPLE, template_date=template_date, template_kwargs=template_kwargs)
    found = next((token_id for token_id in behind if token_id in stops), None)
    return _eos(tokenizer, known) if found is None else AnswerEnd(found, known)


def _eos(tokenizer: PreTrainedTokenizerBase, known: frozenset[int] | None) -> AnswerEnd | None:
    eos = tokenizer.eos_token_id
    return None if eos is None else AnswerEnd(eos, frozenset([eos]) if known is None else known)


def ids_behind_answer(
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    *,
    template_date: str = TEMPLATE_DATE,
    template_kwargs: Mapping[str, Any] = NO_ARGUMENTS,
) -> list[int]:
    """The ids of what the chat template writes behind an answer to a conversation; none where it refuses one."""
    found = around_answer(tokenizer, messages, date=template_date, arguments=template_kwargs)
    return _plain_ids(tokenizer, found[1]) if found else []


def decode_response(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """What a response adds to the text of its prompt, special tokens left out, a leading space kept."""
    return _continuation_text(tokenizer, token_ids, skip_special_tokens=True)


def stop_token_ids(
    tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None, extra: Collection[int] = ()
) -> frozenset[int]:
    """Every id that ends a response: the tokenizer's EOS, the checkpoint's (one or several), and `extra`.

    Raises UsageError when an id of `extra` is not in the vocabulary.
    """
    outside = sorted(token_id for token_id in extra if not 0 <= token_id < len(tokenizer))
    if outside:
        raise UsageError(f"generate.stop_token_ids has {outside[0]}, and the vocabulary ends at {len(tokenizer) - 1}")
    declared = generation_config.eos_token_id if generation_config is not None else None
    several = declared if isinstance(declared, list) else [declared]
    return frozenset(int(token_id) for token_id in (tokenizer.eos_token_id, *several, *extra) if token_id is not None)


def text_with_tokens(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> list[tuple[int, str]]:
    """Each id with its piece of text, or with the tokenizer's own name for it where it is no text of its own."""
    return [(token_id, _piece(tokenizer, token_id)) for token_id in token_ids]


def _piece(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    text = _continuation_text(tokenizer, [token_id], skip_special_tokens=False)
    return text if text and "\N{REPLACEMENT CHARACTER}" not in text else str(tokenizer.convert_ids_to_tokens(token_id))


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Messages, date: str, arguments: Mapping[str, Any]) -> str:
    try:
        return render_prompt(tokenizer, messages, date=date, arguments=arguments)
    except TEMPLATE_ERRORS as error:
        raise InvalidDataError(
            "the tokenizer's chat template refuses a prompt",
            details=[str(error)],
            hint=_way_out(tokenizer, messages, date, arguments),
        ) from error


def _way_out(tokenizer: PreTrainedTokenizerBase, messages: Messages, date: str, arguments: Mapping[str, Any]) -> str:
    """What to do about a prompt that a template refuses; it may be that only the system's message is at fault."""
    others = [message for message in messages if message["role"] != "system"]
    if others and len(others) < len(messages):
        with suppress(*TEMPLATE_ERRORS):
            render_prompt(tokenizer, others, date=date, arguments=arguments)
            return "the template knows no system message: put its text at the beginning of the user's message"
    return "check roles and their order"


def _plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    with refusing_panics(text):
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _without_added_eos(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    with refusing_panics(text):
        token_ids = list(tokenizer(text, verbose=False)["input_ids"])
    end = [tokenizer.eos_token_id]
    # An EOS that the text itself spells out is among the plain ids too, and stays.
    if token_ids[-1:] == end and token_ids[-2:] != _plain_ids(tokenizer, text)[-2:]:
        return token_ids[:-1]
    return token_ids


def _continuation_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    found: list[list[int]] = []
    for anchor in ANCHORS:
        anchor_ids, joined = _plain_ids(tokenizer, anchor), _plain_ids(tokenizer, anchor + text)
        # A merge across the seam spoils this anchor, which shows unless both are the unknown token; another may do.
        if joined[: len(anchor_ids)] == anchor_ids and tokenizer.unk_token_id not in anchor_ids:
            found.append(joined[len(anchor_ids) :])
    # A text that spells out special tokens, or that the tokenizer alters, does not come back; the seam is right still.
    whole = (token_ids for token_ids in found if decode_response(tokenizer, token_ids) == text)
    return next(whole, found[0] if found else _plain_ids(tokenizer, text))


def _continuation_text(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], *, skip_special_tokens: bool
) -> str:
    def decoded(ids: Sequence[int]) -> str:
        return str(
            tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
        )

    anchor_ids = _plain_ids(tokenizer, ANCHORS[1])
    anchor, joined = decoded(anchor_ids), decoded([*anchor_ids, *token_ids])
    return joined[len(anchor) :] if joined.startswith(anchor) else decoded(token_ids)
