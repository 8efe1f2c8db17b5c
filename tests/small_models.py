"""Tiny random models in Hugging Face folders, for tests of every layer; nothing here reaches the network."""

from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

Family = Literal["llama", "gemma", "qwen3", "gpt2", "mixtral"]
RewardFamily = Literal["deberta-v2", "llama"]
TokenizerKind = Literal["bytes", "bytes-bos", "bytes-eos", "bytes-chat", "bytes-chat-bos"]

BOS, EOS, PAD, TURN = 256, 257, 258, 259
VOCABULARY = 260
CONTEXT = 256
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<turn>{{ message['role'] }}\n{{ message['content'] }}<eos>\n"
    "{% endfor %}{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


def byte_tokenizer(kind: TokenizerKind = "bytes", *, with_pad: bool = True) -> PreTrainedTokenizerFast:
    """One token per byte (ids follow the byte alphabet), then `<bos>` 256, `<eos>` 257, `<pad>` 258, `<turn>` 259.

    `bytes-bos` puts BOS before every text, `bytes-eos` appends EOS to every text, the `chat` kinds have a chat template
    that writes BOS itself. Without `with_pad` the tokenizer has no pad token, as many real ones.
    """
    names = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["<bos>", "<eos>", "<pad>", "<turn>"]
    backend = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    before = "<bos> " if kind in ("bytes-bos", "bytes-chat-bos") else ""
    after = " <eos>" if kind == "bytes-eos" else ""
    if before or after:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{before}$A{after}", special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
        )
    backend.add_special_tokens(["<bos>", "<eos>", "<pad>", "<turn>"])
    named = {"bos_token": "<bos>", "eos_token": "<eos>"} | ({"pad_token": "<pad>"} if with_pad else {})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=CONTEXT, **named)
    if "chat" in kind:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def small_config(family: Family, **overrides: Any) -> PretrainedConfig:
    """A configuration with 2 layers of width 32; large initial weights, so that the model's opinions differ."""
    shared: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": None}
    if family == "gpt2":
        sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
        return transformers.GPT2Config(**shared | sizes | {"initializer_range": 0.2} | overrides)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1 if family == "gemma" else 2,
        "head_dim": 8,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.2,
        "tie_word_embeddings": family == "gemma",
    }
    config_class = {
        "llama": transformers.LlamaConfig,
        "gemma": transformers.GemmaConfig,
        "qwen3": transformers.Qwen3Config,
        "mixtral": transformers.MixtralConfig,
    }[family]
    if family == "mixtral":
        sizes |= {"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.02}
    return config_class(**shared | sizes | overrides)


def save_small_model(
    folder: Path,
    family: Family = "llama",
    tokenizer: TokenizerKind | PreTrainedTokenizerFast = "bytes",
    *,
    with_pad: bool = True,
    seed: int = 0,
    **config_overrides: Any,
) -> Path:
    """Write a tiny random causal language model and its tokenizer; returns the folder."""
    backend = byte_tokenizer(tokenizer, with_pad=with_pad) if isinstance(tokenizer, str) else tokenizer
    config = small_config(
        family, **{"vocab_size": len(backend), "pad_token_id": backend.pad_token_id} | config_overrides
    )
    return _save(transformers.AutoModelForCausalLM, config, backend, Path(folder), seed)


def save_small_reward_model(folder: Path, family: RewardFamily = "deberta-v2", seed: int = 0) -> Path:
    """Write a tiny random sequence classifier with one label, its head included; returns the folder.

    The `llama` one has a chat template; the `deberta-v2` one reads text pairs, `[CLS] a [SEP] b [SEP]` in spirit.
    """
    if family == "llama":
        tokenizer = byte_tokenizer("bytes-chat")
        config = small_config("llama", num_labels=1, pad_token_id=PAD)
    else:
        tokenizer = byte_tokenizer()
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A <eos>",
            pair="<bos> $A <eos> $B:1 <eos>:1",
            special_tokens=[("<bos>", BOS), ("<eos>", EOS)],
        )
        config = transformers.DebertaV2Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=CONTEXT,
            type_vocab_size=2,
            pooler_hidden_size=32,
            initializer_range=0.2,
            pad_token_id=PAD,
            num_labels=1,
        )
    return _save(transformers.AutoModelForSequenceClassification, config, tokenizer, Path(folder), seed)


def _save(factory: Any, config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast, folder: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = factory.from_config(config)
        model.to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
