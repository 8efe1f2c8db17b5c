"""Turn a prompt and a response into the tokens that a reward model reads."""

import math

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.records import PromptText, prompt_as_text, with_whole_answer
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.models.chat_template import TEMPLATE_ERRORS, render_chat
from activedpo_cli.models.loading import context_length
from activedpo_cli.models.vocabulary import remember_embeddings, require_readable

NO_LIMIT = 1_000_000
"""Tokenizers without a limit of their own carry a huge number instead."""


class RewardInputs:
    """Encodes in the format that `label.input_format` names, cutting the beginning of prompts that are too long.

    A response is never cut: a reward for half a response would be a reward for something else.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, settings: LabelSettings, name: str
    ) -> None:
        self._tokenizer = tokenizer
        self._name = name
        count = getattr(config.get_text_config(), "vocab_size", None)
        if isinstance(count, int):
            remember_embeddings(tokenizer, count)
        self._max_length = _max_length(tokenizer, config, settings.max_length)
        self._uses_chat = settings.input_format == "chat" or (
            settings.input_format == "auto" and tokenizer.chat_template is not None
        )
        if self._uses_chat and tokenizer.chat_template is None:
            raise UsageError(f"the reward model `{name}` has no chat template", hint="use `--input-format pair`")
        self.truncated = 0

    def encode(self, prompt: PromptText, response: str) -> dict[str, list[int]]:
        """`input_ids`, and `token_type_ids` where the tokenizer tells the two texts of a pair apart.

        An answer that the prompt begins is read as one with the response.
        """
        prompt, response = with_whole_answer(prompt, response)
        encoded = self._encode_chat(prompt, response) if self._uses_chat else self._encode_pair(prompt, response)
        require_readable(self._tokenizer, encoded["input_ids"], response)
        return encoded

    def _encode_chat(self, prompt: PromptText, response: str) -> dict[str, list[int]]:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        ids = self._apply_template([*messages, {"role": "assistant", "content": response}], False)
        excess = len(ids) - self._max_length
        if excess <= 0:
            return {"input_ids": ids}
        kept = 1 if ids[0] == self._tokenizer.bos_token_id else 0
        self._require_room(excess, len(self._apply_template(messages, True)) - kept)
        return {"input_ids": ids[:kept] + ids[kept + int(excess) :]}

    def _encode_pair(self, prompt: PromptText, response: str) -> dict[str, list[int]]:
        text = prompt_as_text(prompt)
        encoded = self._tokenizer(text, response, verbose=False)
        excess = len(encoded["input_ids"]) - self._max_length
        if excess > 0:
            self._require_room(excess, len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]))
            self._tokenizer.truncation_side = "left"
            encoded = self._tokenizer(text, response, truncation="only_first", max_length=self._max_length)
        return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}

    def _apply_template(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> list[int]:
        try:
            text = render_chat(self._tokenizer, messages, opened=add_generation_prompt)
        except TEMPLATE_ERRORS as error:
            raise InvalidDataError(
                f"the chat template of `{self._name}` does not take a conversation of "
                f"{', '.join(message['role'] for message in messages)}",
                details=[str(error)],
                hint="use `--input-format pair`",
            ) from error
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _require_room(self, excess: float, prompt_tokens: int) -> None:
        if excess >= prompt_tokens:
            raise InvalidDataError(
                f"a response is too long for the reward model `{self._name}`, which reads {self._max_length} tokens",
                hint="raise `label.max_length` where the model allows it, or lower `generate.max_new_tokens`",
            )
        self.truncated += 1


def _max_length(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, wanted: int | None) -> int | float:
    """`wanted`, else the smaller limit of tokenizer and model; infinite where neither has one."""
    positions = context_length(config)
    limits = [limit for limit in (tokenizer.model_max_length, positions) if limit and limit < NO_LIMIT]
    own = min(limits, default=math.inf)
    has_fixed_positions = getattr(config, "position_biased_input", True)
    if wanted is not None and positions is not None and has_fixed_positions and wanted > positions:
        raise UsageError(f"the reward model reads {positions} tokens, and `label.max_length` asks for {wanted}")
    return own if wanted is None else wanted
