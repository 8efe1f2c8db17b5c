"""Train the built-in language model, a small Llama, on stories with transformers' Trainer, and sample from it."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from built_in_task.corpus import Corpus

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SAMPLED_AT_ONCE = 128


@dataclass(frozen=True)
class LanguageModelPlan:
    """Sizes and lengths of the training; the defaults make the model that ships."""

    vocabulary: int = 2048
    context: int = 256
    width: int = 128
    feed_forward: int = 384
    layers: int = 6
    heads: int = 4
    steps: int = 2400
    batch: int = 16
    learning_rate: float = 2e-3
    bf16: bool = True
    """Train in mixed precision; the weights are kept in float32 until they are saved."""


def train_language_model(
    corpus: Corpus, tokenizer: "PreTrainedTokenizerFast", plan: LanguageModelPlan, work: Path, seed: int
) -> "LlamaForCausalLM":
    """The trained model in float32; goes on at the newest checkpoint in `work`."""
    import torch
    from transformers import LlamaForCausalLM, Trainer, TrainingArguments

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(_config(plan, tokenizer))
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=max(1, plan.steps // 30),
        weight_decay=0.05,
        adam_beta2=0.98,
        bf16=plan.bf16,
        use_cpu=True,
        save_steps=max(1, plan.steps // 20),
        save_total_limit=1,
        logging_steps=max(1, plan.steps // 100),
        seed=seed,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=_Rows(corpus, tokenizer, plan))
    trainer.train(resume_from_checkpoint=newest_whole_checkpoint(work))
    return model


def held_out_loss(model: Any, tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str], context: int) -> float:
    """Nats per token over whole texts, each cut where the context ends."""
    import torch

    total, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor([_story_ids(tokenizer, text)[:context]])
        with torch.inference_mode():
            loss = model(input_ids=ids, labels=ids).loss
        total += loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return total / tokens


def sample_responses(
    model: Any,
    tokenizer: "PreTrainedTokenizerFast",
    prompts: Sequence[str],
    number: int,
    seed: int,
    new_tokens: int = 64,
) -> list[list[str]]:
    """`number` responses to each prompt at temperature 1; equal seeds and batches give equal texts."""
    import torch

    texts: list[str] = []
    repeated = [prompt for prompt in prompts for _ in range(number)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(repeated), SAMPLED_AT_ONCE):
            encoded = tokenizer(repeated[start : start + SAMPLED_AT_ONCE], padding=True, return_tensors="pt")
            output = model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=new_tokens,
            )
            texts += tokenizer.batch_decode(output[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    return [texts[start : start + number] for start in range(0, len(texts), number)]


def newest_whole_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that the Trainer finished writing; what it was still writing is removed.

    `trainer_state.json` is the last file that it writes.
    """
    found = sorted(work.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    for folder in found:
        if not (folder / "trainer_state.json").is_file():
            shutil.rmtree(folder)
    whole = [folder for folder in found if folder.is_dir()]
    return str(whole[-1]) if whole else None


class _Rows:
    """The training rows as a dataset; row i is made when it is asked for."""

    def __init__(self, corpus: Corpus, tokenizer: "PreTrainedTokenizerFast", plan: LanguageModelPlan) -> None:
        self._corpus, self._tokenizer, self._plan = corpus, tokenizer, plan

    def __len__(self) -> int:
        return self._plan.steps * self._plan.batch

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        ids = self._corpus.row(number, self._plan.context, lambda text: _story_ids(self._tokenizer, text))
        return {"input_ids": ids, "labels": ids}


def _story_ids(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[int]:
    return [*tokenizer(text, verbose=False)["input_ids"], tokenizer.eos_token_id]


def _config(plan: LanguageModelPlan, tokenizer: "PreTrainedTokenizerFast") -> "LlamaConfig":
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.width,
        intermediate_size=plan.feed_forward,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=plan.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
