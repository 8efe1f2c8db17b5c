"""What the text or the messages in a cell mean: prompts, conversations, and the prompt that two answers share."""

from typing import Any

from activedpo_cli.base.columns import require_length, require_text
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import PromptText

SPEAKERS = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model"), "assistant"),
    "system": "system",
}
"""Who speaks in ShareGPT's messages, as chat templates call them."""
FIRST_TURN, ANSWER = "\n\nHuman:", "\n\nAssistant:"
"""How Anthropic's transcripts begin, and what stands before an answer."""


class UnusableRowError(InvalidDataError):
    """A row is as rows should be, and nothing can be made of it; `reason` is the word for it in counts of rows left out."""

    reason = ""


class EmptyPromptError(UnusableRowError):
    """The prompt of a row has no text."""

    reason = "empty_prompt"

    def __init__(self, origin: str) -> None:
        super().__init__(f"{origin}: the prompt is empty", hint="leave the row out, or give it a prompt")


class DifferentPromptsError(UnusableRowError):
    """The two responses of a row answer different texts."""

    reason = "different_prompts"


def parse_prompt(value: Any, origin: str, column: str = "prompt") -> PromptText:
    """A prompt as it may stand in a file: text that is not blank, or messages with `role` and `content`.

    Raises InvalidDataError, naming `origin`, for anything else; EmptyPromptError where only the text is lacking, or nothing
    is there.
    """
    if value is None:
        raise EmptyPromptError(origin)
    if isinstance(value, str):
        if not value.strip():
            raise EmptyPromptError(origin)
        require_text(value, f"{origin}, {column}")
        return value
    if not isinstance(value, list):
        raise InvalidDataError(f"{origin}: a prompt is text or a list of messages, not {excerpt(value)}")
    messages = parse_messages(value, origin)
    if not any(message["content"].strip() for message in messages):
        raise EmptyPromptError(origin)
    return messages


def parse_messages(value: list[Any], origin: str) -> list[dict[str, str]]:
    """Messages with `role` and `content`, both text, and nothing else that the model would have to see.

    A content that is a list of parts, all of them text, is these texts one behind the other, as chat templates join them.
    Further fields without a value are no part of a message: Arrow gives every message the fields of all others. Messages
    with `from` and `value`, as in ShareGPT, are read where it is certain who speaks.

    Raises InvalidDataError, naming `origin`, otherwise.
    """
    value = [_with_role(message, f"{origin}: message {number}") for number, message in enumerate(value, start=1)]
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise InvalidDataError(
                f"{origin}: message {number} needs `role` and `content` only, not {excerpt(message)}"
            )
        others = [name for name, part in message.items() if name not in ("role", "content") and part]
        if others:
            raise InvalidDataError(
                f"{origin}: message {number} needs `role` and `content` only, and has `{excerpt(others[0])[1:-1]}`",
                hint="the model would not see it; leave out rows with calls of tools, or write them into `content`",
            )
        if isinstance(message["content"], list):
            message = {**message, "content": _text_of_parts(message["content"], f"{origin}: message {number}")}
            value[number - 1] = message
        if not all(isinstance(message[name], str) for name in ("role", "content")) or not message["role"]:
            raise InvalidDataError(f"{origin}: `role` and `content` of message {number} must be text")
        require_length(message["content"], f"{origin}, message {number}")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _text_of_parts(parts: list[Any], origin: str) -> str:
    """The texts of a content in parts, joined; fields of a part without a value are Arrow's."""
    for number, part in enumerate(parts, start=1):
        if not isinstance(part, dict):
            raise InvalidDataError(
                f"{origin}: part {number} of `content` is an object with `type` and `text`, not {excerpt(part)}"
            )
        others = [name for name, value in part.items() if name not in ("type", "text") and value]
        if part.get("type") == "text" and isinstance(part.get("text"), str) and not others:
            continue
        kind = part.get("type")
        what = f"holds `{excerpt(others[0])[1:-1]}`" if kind == "text" and others else f"is {excerpt(kind)}"
        raise InvalidDataError(
            f"{origin}: part {number} of `content` {what}, and the model reads text alone",
            hint="leave out rows with images, sound or calls of tools, or describe them in text",
        )
    return "".join(part["text"] for part in parts)


def _with_role(message: Any, origin: str) -> Any:
    if not isinstance(message, dict) or not {"from", "value"} <= message.keys() or {"role", "content"} & message.keys():
        return message
    speaker = message["from"]
    if not isinstance(speaker, str) or speaker.lower() not in SPEAKERS:
        raise InvalidDataError(
            f"{origin} is from {excerpt(speaker)}, and who speaks is one of {', '.join(SPEAKERS)}",
            hint="leave out rows with calls of tools, or write messages as `role` and `content`",
        )
    others = {name: part for name, part in message.items() if name not in ("from", "value")}
    return {"role": SPEAKERS[speaker.lower()], "content": message["value"], **others}


def shared_prompt(chosen: Any, rejected: Any, origin: str) -> PromptText:
    """The prompt of a preference without one, TRL's implicit prompt: the messages before the last, equal in both.

    Of transcripts as Anthropic's, that is the text up to the last `Assistant:` that both share.

    Raises:
        DifferentPromptsError: the two are no answers to the same text.
        InvalidDataError: they are neither messages nor such transcripts, or hold no text; names `origin`.

    """
    if all(isinstance(side, str) and side.startswith(FIRST_TURN) for side in (chosen, rejected)):
        return _shared_transcript(chosen, rejected, origin)
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise InvalidDataError(
            f"{origin} has no `prompt`",
            details=["only messages can hold the prompt inside `chosen` and `rejected`"],
            hint="TRL splits texts that begin alike: `dataset.map(trl.extract_prompt)` gives them a `prompt`",
        )
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        raise DifferentPromptsError(
            f"{origin}: `chosen` and `rejected` differ before their last message",
            hint="give the row a `prompt` of its own, or leave it out: the two are no answers to one prompt",
        )
    return parse_prompt(chosen[:-1], origin)


def _shared_transcript(chosen: str, rejected: str, origin: str) -> str:
    places = enumerate(zip(chosen, rejected, strict=False))
    shared = chosen[: next((place for place, (a, b) in places if a != b), min(len(chosen), len(rejected)))]
    end = shared.rfind(ANSWER) + len(ANSWER)
    if ANSWER not in shared or any(FIRST_TURN in side[end:] or ANSWER in side[end:] for side in (chosen, rejected)):
        raise DifferentPromptsError(
            f"{origin}: `chosen` and `rejected` differ before their last answer",
            hint="leave the row out: the two are no answers to one prompt",
        )
    return shared[:end]


def require_same_prompt(before: list[dict[str, str]], prompt: PromptText, origin: str) -> None:
    """Raise InvalidDataError where the messages before an answer are not those of the row's prompt."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if [(m["role"], m["content"].strip()) for m in before] != [(m["role"], m["content"].strip()) for m in messages]:
        raise InvalidDataError(
            f"{origin}: the messages before the answer are not those of `prompt`",
            hint="without a column `prompt`, the messages that `chosen` and `rejected` share are the prompt",
        )
