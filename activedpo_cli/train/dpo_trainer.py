"""Trains the adapter with TRL's DPO on stored tokens, against π_SFT (paper Eq. 2); TRL computes the loss.

TRL would tokenize text again, drop and cut long rows, append EOS and take the adapter it is given as the reference.
Here the dataset is handed over ready, no length is limited, and the reference is the base with adapters off.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.settings import TrainSettings
from activedpo_cli.models.dropout import base_dropout_off
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.random_state import NUMPY_SEEDS, seeded_library_state
from activedpo_cli.models.vocabulary import padding_id
from activedpo_cli.train.trainer_setup import (
    AuditedTrainer,
    RowsInBatch,
    Watch,
    check_schedule,
    model_restored,
    on_one_device,
    planned_steps,
    shared_arguments,
)
from activedpo_cli.train.training_audit import DPOExample, TrainingAudit, check_examples, trainable_parameters

__all__ = ["DPOExample", "DPOResult", "planned_steps", "train_dpo"]

COPIED_REFERENCE = "ref"
REF_CHOSEN, REF_REJECTED = "ref_chosen_logps", "ref_rejected_logps"
"""What TRL calls the log-probabilities of π_ref in a batch."""


@dataclass(frozen=True, kw_only=True)
class DPOResult:
    """What training did.

    `metrics` has one row for each update, in TRL's names with `step` and `epoch`; rewards and log-probabilities are
    those before the update. `rows_trained` counts the preferences seen, `tokens_trained` their response tokens;
    `rows_that_fit` is how many rows were worked on at once where memory did not suffice for whole batches.
    """

    metrics: list[dict[str, float]]
    rows_trained: int
    tokens_trained: int
    rows_that_fit: int | None = None


def train_dpo(
    policy: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[DPOExample],
    settings: TrainSettings,
    *,
    seed: int,
    device: torch.device,
    on_log: Callable[[dict[str, float]], None],
    scratch: Path,
    asks_reference_once: bool = True,
) -> DPOResult:
    """Update the policy's adapter in place; π_ref is the same model with its adapter off.

    π_ref is asked about each pair when training first comes to it, or in every epoch unless `asks_reference_once`.
    Equal arguments give equal adapters, bit for bit on a CPU. `on_log` gets each metrics row as it is made; `scratch`
    is a folder for the libraries. Raises ActiveDPOError when nothing is trainable, when a loss or gradient is not
    finite (before that update), when the first gradient is zero, when a policy that is π_ref has a reward, and when rows
    or tokens are not those given; raises UsageError for settings that the libraries refuse.
    """
    check_examples(examples)
    check_schedule(settings, planned_steps(len(examples), settings), "train")
    trainable_parameters(policy)
    audit, rows = TrainingAudit(examples, settings, policy, asks_once=asks_reference_once), []

    def keep(row: dict[str, float]) -> None:
        rows.append(row)
        on_log(row)

    with (
        quiet_libraries(),
        seeded_library_state(seed),
        base_dropout_off(policy),
        model_restored(policy, device, checkpointing=settings.gradient_checkpointing),
        _without_copied_reference(policy),
    ):
        config = _config(settings, seed=seed % NUMPY_SEEDS, device=device, scratch=scratch)
        trainer = _StoredTokensTrainer(
            model=policy,
            args=config,
            train_dataset=_dataset(examples),
            processing_class=tokenizer,
            data_collator=_collator(tokenizer),
            callbacks=[Watch(audit, keep)],
        )
        trainer.audit = audit
        policy.delete_adapter(COPIED_REFERENCE)
        trainer.train()
    audit.check_weights(trainable_parameters(policy))
    seen = set(gather_object(sorted(audit.seen)))
    if settings.num_train_epochs >= 1:
        audit.check_complete(seen)
    return DPOResult(
        metrics=rows, rows_trained=len(seen), tokens_trained=audit.tokens(seen), rows_that_fit=trainer.rows_that_fit
    )


class _StoredTokensTrainer(AuditedTrainer, DPOTrainer):
    """TRL's trainer, taking the dataset as it is and reporting each batch to an audit.

    π_ref does not change, so its pass over a pair is done when the pair is first seen, and what it said is used in later
    epochs. TRL's own `precompute_ref_log_probs` would ask the copy of the adapter instead, and read all weights to name a
    cache; what is used of it is the branch of the loss that takes log-probabilities from the batch.
    """

    audit: TrainingAudit

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss of the batch, by a pass of π_ref or by what it said before."""
        known = self.audit.known_reference(inputs["row"])
        self.precompute_ref_logps = known is not None
        if known is not None:
            chosen, rejected = known.to(inputs["input_ids"].device, self.audit.format_of_logps).chunk(2)
            inputs = inputs | {REF_CHOSEN: chosen, REF_REJECTED: rejected}
        return super().compute_loss(model, inputs, *args, **kwargs)


@dataclass
class _CollatorWithRows(RowsInBatch, DataCollatorForPreference):
    """TRL's batch, and which rows of the dataset are in it."""


@contextmanager
def _without_copied_reference(policy: PeftModel) -> Iterator[None]:
    try:
        yield
    finally:
        if COPIED_REFERENCE in policy.peft_config:
            policy.delete_adapter(COPIED_REFERENCE)


def _dataset(examples: Sequence[DPOExample]) -> Dataset:
    return Dataset.from_dict(
        {
            "row": list(range(len(examples))),
            "prompt_ids": [example.prompt_ids for example in examples],
            "chosen_ids": [example.chosen_ids for example in examples],
            "rejected_ids": [example.rejected_ids for example in examples],
        }
    )


def _collator(tokenizer: PreTrainedTokenizerBase) -> _CollatorWithRows:
    return _CollatorWithRows(pad_token_id=padding_id(tokenizer), max_length=None)


def _config(settings: TrainSettings, *, seed: int, device: torch.device, scratch: Path) -> DPOConfig:
    try:
        config = DPOConfig(
            **shared_arguments(settings, seed=seed, device=device, scratch=scratch),
            beta=settings.beta,
            **_loss_of_trl(settings),
            precompute_ref_log_probs=False,
            disable_dropout=False,  # would silence the adapter's own, too; see `base_dropout_off`
            bf16=False,  # the base keeps its own format, the adapter float32, as in featurize
            save_strategy="no",
        )
    except ValueError as error:
        raise UsageError(f"TRL refuses the train settings: {str(error).splitlines()[0]}") from error
    return on_one_device(config)


def _loss_of_trl(settings: TrainSettings) -> dict[str, Any]:
    """The loss in TRL's words.

    TRL's `sigmoid` does not read `label_smoothing`. With s = −log σ(βΔ) and s' = −log σ(−βΔ), its `robust` loss is
    r = ((1−ε) s − ε s') / (1−2ε), so conservative DPO, (1−ε) s + ε s', is 2 (1−ε) s − (1−2ε) r.
    """
    wrong = settings.wrong_share
    if settings.loss_type != "cdpo":
        return {"loss_type": [settings.loss_type], "label_smoothing": wrong}
    weights = [2 * (1 - wrong), 2 * wrong - 1]
    return {"loss_type": ["sigmoid", "robust"], "loss_weights": weights, "label_smoothing": wrong}
