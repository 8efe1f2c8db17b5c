"""Write a tiny Llama as a GGUF file, by the package of the format's own authors, beside the same model as a folder."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from small_models import CHAT_TEMPLATE, save_small_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "a"), ("e", "r")]
SPECIAL = ["<bos>", "<eos>", "<pad>", "<turn>"]
TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with a few merges, special tokens and a chat template."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in MERGES] + SPECIAL
    backend = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def model_as_folder(folder: Path, **config: Any) -> Path:
    """Two layers, grouped heads, a head of its own."""
    tokenizer = merging_tokenizer()
    return save_small_model(
        folder,
        tokenizer=tokenizer,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        rope_theta=5000.0,
        **config,
    )


def write_gguf(
    folder: Path,
    file: Path,
    *,
    quantized: gguf.GGMLQuantizationType | None = None,
    architecture: str = "llama",
    without: str | None = None,
    more: dict[str, np.ndarray] | None = None,
    **fields: int,
) -> Path:
    """The model of `folder` as one file; `without` leaves a tensor out, `more` adds some, `fields` are further numbers."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    config, tokenizer = model.config, merging_tokenizer()
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    writer.add_token_list(names)
    kinds = [gguf.TokenType.CONTROL if name in SPECIAL else gguf.TokenType.NORMAL for name in names]
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, number in fields.items():
        writer.add_uint16(name.replace("__", "."), number)
    tensors = {_name(name): _values(name, value.numpy(), config) for name, value in model.state_dict().items()}
    for name, values in (tensors | (more or {})).items():
        if name == without:
            continue
        if quantized is not None and values.ndim > 1:
            writer.add_tensor(name, gguf.quants.quantize(values, quantized), raw_dtype=quantized)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in OUTER:
        return f"{OUTER[stem]}.weight"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{TENSORS[inner]}.weight"


def _values(name: str, values: np.ndarray, config: Any) -> np.ndarray:
    """The format rotates neighbouring rows of queries and keys, where transformers rotates halves of a head."""
    if "q_proj" not in name and "k_proj" not in name:
        return values
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    half = values.shape[0] // heads // 2
    halves = values.reshape(heads, 2, half, values.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
