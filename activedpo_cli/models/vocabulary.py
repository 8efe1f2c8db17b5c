"""Where a tokenizer and its model disagree about how many tokens there are, as after tokens were added to one of them.

A model with more embeddings than its tokenizer has tokens is fine. A token without an embedding can't be read; one that only
pads a batch need not be.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from torch.nn import Module
from transformers import PreTrainedTokenizerBase

from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError

_embeddings: "WeakKeyDictionary[PreTrainedTokenizerBase, int]" = WeakKeyDictionary()


def remember_embeddings(tokenizer: PreTrainedTokenizerBase, count: int) -> None:
    """Note for how many tokens the model that a tokenizer was loaded with has embeddings."""
    _embeddings[tokenizer] = count


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that pads batches, masked wherever it stands: the pad token's where the model can read it, else 0."""
    pad_token_id = tokenizer.pad_token_id
    if pad_token_id is None or not 0 <= pad_token_id < _embeddings.get(tokenizer, pad_token_id + 1):
        return 0
    return int(pad_token_id)


def has_unreadable(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer can make a token for which the model has no embedding."""
    return len(tokenizer) > _embeddings.get(tokenizer, len(tokenizer))


def require_readable(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], text: object) -> None:
    """Raise InvalidDataError, naming the first, where the model has no embedding for one of a text's tokens."""
    count = _embeddings.get(tokenizer)
    if count is None or not token_ids or max(token_ids) < count:
        return
    token_id = next(token_id for token_id in token_ids if token_id >= count)
    raise InvalidDataError(
        f"the model has embeddings for {count} tokens, and its tokenizer makes token {token_id}, "
        f"`{tokenizer.convert_ids_to_tokens(token_id)}`",
        details=[f"the tokenizer knows {len(tokenizer)} tokens", f"the token is made of {excerpt(text)}"],
        hint="use the tokenizer and the chat template that the model was trained with, or a model whose embeddings were "
        "resized and trained for these tokens",
    )


def ordinary_ids(model: Module) -> list[int]:
    """The ids of a model's vocabulary but those that its configuration names, as the ends of a text and places of images."""
    language_model: Any = model
    named = {
        value
        for part in (language_model.config, language_model.config.get_text_config())
        for name, value in vars(part).items()
        if name.endswith(("_token_id", "_token_index")) and isinstance(value, int)
    }
    return [token for token in range(len(language_model.get_input_embeddings().weight)) if token not in named] or [0]
