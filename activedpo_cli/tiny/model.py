"""The tiny task's model: a small Llama with random weights and one token for every printable ASCII character.

It has learnt nothing: its text is noise. It stands in for a real model so that every stage runs in seconds, on any
machine, without a network.
"""

import string
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaConfig, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
CHARACTERS = "\n" + " " + string.ascii_letters + string.digits + string.punctuation
CONTEXT_LENGTH = 256
WEIGHT_SCALE = 0.08
"""Standard deviation of the weights: wide enough that the text depends on what stands before it."""


def build_tiny_model(folder: Path, seed: int) -> None:
    """Write model and tokenizer into `folder` in Hugging Face format (about 170,000 parameters, float32).

    Equal seeds give equal bytes; no global random state is read or changed. There is no chat template.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import GenerationConfig, LlamaForCausalLM

    config = _config()
    with torch.device("meta"):  # shapes and names only: weights drawn by the library would use the global generator
        shapes = {name: value.shape for name, value in LlamaForCausalLM(config).state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_weights(shapes, seed), folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def _config() -> "LlamaConfig":
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(SPECIAL_TOKENS) + len(CHARACTERS),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        initializer_range=WEIGHT_SCALE,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )


def _weights(shapes: "dict[str, tuple[int, ...]]", seed: int) -> "dict[str, Tensor]":
    """Normal matrices and norms of one, drawn in the order of their names."""
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    weights = {}
    for name in sorted(shapes):
        if len(shapes[name]) == 1:
            weights[name] = torch.ones(shapes[name])
        else:
            weights[name] = torch.randn(shapes[name], generator=generator) * WEIGHT_SCALE
    return weights


def _tokenizer() -> "PreTrainedTokenizerFast":
    """One token a character, the beginning marked by `<bos>`; whatever else a text holds becomes `<unk>`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=CONTEXT_LENGTH,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
