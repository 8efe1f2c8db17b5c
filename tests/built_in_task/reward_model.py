"""Train the built-in reward model: the language model's lower layers and one output, on preferences made with the rule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from activedpo_cli.tiny.rule import score
from built_in_task.language_model import newest_whole_checkpoint

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast, Trainer


@dataclass(frozen=True)
class Preference:
    """Two responses to one prompt, the first one preferred."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class RewardModelPlan:
    """Sizes and lengths of the training; the defaults make the model that ships."""

    layers: int = 2
    steps: int = 600
    batch: int = 32
    learning_rate: float = 5e-4
    noise: float = 0.1
    """A gap of the rule's score by which the better response is preferred with probability 1 / (1 + 1/e)."""


def draw_preferences(responses: dict[str, Sequence[str]], noise: float, random: Random) -> list[Preference]:
    """For each prompt every pair of its different responses once; Bradley and Terry's model with the rule's score."""
    found = []
    for prompt, texts in responses.items():
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        scores = score([prompt] * len(distinct), distinct)
        for first in range(len(distinct)):
            for second in range(first):
                wins = random.random() < 1 / (1 + math.exp((scores[second] - scores[first]) / noise))
                chosen, rejected = (first, second) if wins else (second, first)
                found.append(Preference(prompt, distinct[chosen], distinct[rejected]))
    return found


def train_reward_model(
    language_model: "LlamaForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    preferences: Sequence[Preference],
    plan: RewardModelPlan,
    work: Path,
    seed: int,
) -> "LlamaForSequenceClassification":
    """Least −log σ(r(chosen) − r(rejected)); goes on at the newest checkpoint in `work`. `tokenizer` ends texts by EOS."""
    from transformers import TrainingArguments

    model = _lower_layers(language_model, plan.layers, seed)
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, plan.steps // 20),
        weight_decay=0.05,
        use_cpu=True,
        save_steps=max(1, plan.steps // 4),
        save_total_limit=1,
        logging_steps=max(1, plan.steps // 20),
        remove_unused_columns=False,
        seed=seed,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = _pairwise_trainer()(
        model=model,
        args=arguments,
        train_dataset=list(preferences),
        data_collator=lambda batch: _encoded(tokenizer, batch),
    )
    trainer.train(resume_from_checkpoint=newest_whole_checkpoint(work))
    return model


def reward(
    model: Any, tokenizer: "PreTrainedTokenizerFast", prompts: Sequence[str], responses: Sequence[str]
) -> list[float]:
    """The model's output for each response."""
    import torch

    found: list[float] = []
    for start in range(0, len(prompts), 64):
        batch = tokenizer(
            list(prompts[start : start + 64]), list(responses[start : start + 64]), padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        found += logits[:, 0].float().tolist()
    return found


def _lower_layers(language_model: "LlamaForCausalLM", layers: int, seed: int) -> "LlamaForSequenceClassification":
    """A classifier with the first layers' weights; its output starts small and seeded."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    shape = language_model.config.to_dict()
    for name in ("id2label", "label2id", "architectures"):
        shape.pop(name, None)
    config = LlamaConfig.from_dict(shape | {"num_hidden_layers": layers, "num_labels": 1})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForSequenceClassification(config)
    weights = language_model.model.state_dict()
    model.model.load_state_dict({name: weights[name] for name in model.model.state_dict()})
    return model


def _encoded(tokenizer: "PreTrainedTokenizerFast", batch: Sequence[Preference]) -> "dict[str, Tensor]":
    """Chosen rows, then rejected rows, of one width."""
    prompts = [row.prompt for row in batch] * 2
    texts = [row.chosen for row in batch] + [row.rejected for row in batch]
    encoded = tokenizer(prompts, texts, padding=True, return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def _pairwise_trainer() -> "type[Trainer]":
    from torch.nn.functional import logsigmoid
    from transformers import Trainer

    class PairwiseTrainer(Trainer):  # type: ignore[misc]
        """Trains on margins between the two halves of a batch."""

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            outputs = model(**inputs)
            chosen, rejected = outputs.logits[:, 0].chunk(2)
            loss = -logsigmoid(chosen - rejected).mean()
            return (loss, outputs) if return_outputs else loss

    return PairwiseTrainer
