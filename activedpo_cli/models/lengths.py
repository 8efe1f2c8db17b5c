"""The lengths of a text beyond which a model computes otherwise, by the names that configurations have for them.

Sliding windows, chunks, the tokens that sparse attention keeps, and the length beyond which positions are scaled. A name
that means something else costs a look at another length, and nothing more.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PretrainedConfig

ENDINGS = ("window", "window_size", "window_len", "chunk_size", "chunk_length", "block_size", "index_topk")
SCALED_POSITIONS = "original_max_position_embeddings"


def turning_lengths(config: PretrainedConfig) -> dict[int, str]:
    """The names of lengths, in tokens, that a model's configuration has for its text, by length and in its order."""
    found = dict[int, str]()
    for name, length in sorted(_lengths(vars(config.get_text_config())), key=lambda item: item[1]):
        found.setdefault(length, name)
    return found


def _lengths(settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _lengths({str(key): inner for key, inner in value.items()})
        elif name.endswith(ENDINGS) or name == SCALED_POSITIONS:
            several = value if isinstance(value, list | tuple) else [value]
            yield from ((name, length) for length in several if type(length) is int and length > 0)
