"""Supervised fine-tuning with TRL on ready tokens, from checkpoints that continue it exactly.

TRL would tokenize text again, cut at 1024 tokens, and choose by the names of columns which tokens count. Here each row
comes with its labels. Dropout of the base is off: π_SFT is sampled and referred to without it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerState
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.settings import SftSettings
from activedpo_cli.models.dropout import base_dropout_off
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.random_state import NUMPY_SEEDS, seeded_library_state
from activedpo_cli.models.vocabulary import padding_id
from activedpo_cli.train.division import Division
from activedpo_cli.train.sft_examples import IGNORED, SFTAudit, SFTExample
from activedpo_cli.train.trainer_setup import (
    AuditedTrainer,
    RowsInBatch,
    Watch,
    check_schedule,
    division_for,
    formats_kept,
    metrics_row,
    model_restored,
    on_one_device,
    planned_steps,
    shared_arguments,
)
from activedpo_cli.train.training_audit import trainable_parameters

__all__ = ["SFTExample", "SFTResult", "planned_steps", "train_sft"]

SEEN = "seen.json"
STATE = "trainer_state.json"


@dataclass(frozen=True, kw_only=True)
class SFTResult:
    """What training did: a metrics row for each update in TRL's names, what of the examples it saw, how many at once."""

    metrics: list[dict[str, float]]
    rows_trained: int
    tokens_trained: int
    rows_that_fit: int | None = None


def train_sft(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[SFTExample],
    settings: SftSettings,
    *,
    seed: int,
    device: torch.device,
    scratch: Path,
    checkpoint: Path | None,
    on_log: Callable[[dict[str, float]], None],
    on_checkpoint: Callable[[int, Path], None],
    shard: Shard | None = None,
) -> SFTResult:
    """Update whatever of the model is trainable, in place: all of it, or an adapter.

    Equal arguments give equal weights, bit for bit on a CPU, and so does going on from any `checkpoint`. Each is a folder
    that `on_checkpoint` is handed with its step, and must take away. Where this is one of several processes (`shard`), all
    with the same arguments, they make updates together, which are the same but for rounding and for an adapter's dropout;
    the first one hands checkpoints on, and they go on from those of any number of processes. Raises ActiveDPOError when a
    loss or gradient is not finite (before that update) and when rows or tokens are not those given; UsageError for settings
    that are refused, InvalidDataError for a checkpoint of anybody else's making.
    """
    if not examples:
        raise InvalidDataError("there are no examples to train on")
    division = division_for(settings, shard.count if shard else 1)
    check_schedule(settings, planned_steps(len(examples), settings), "sft")
    trainable_parameters(model)
    audit = SFTAudit(examples)
    with (
        quiet_libraries(),
        seeded_library_state(seed),
        base_dropout_off(model),
        model_restored(model, device, checkpointing=settings.gradient_checkpointing),
    ):
        with formats_kept(model):
            trainer = _ReadyTokensTrainer(
                model=model,
                args=_config(settings, seed=seed % NUMPY_SEEDS, device=device, scratch=scratch, division=division),
                train_dataset=_dataset(examples),
                processing_class=tokenizer,
                data_collator=_collator(tokenizer),
                callbacks=[Watch(audit, on_log), _Keep(audit, on_checkpoint)],
            )
        trainer.audit = audit
        trainer.share_updates(division, seed)
        if checkpoint is not None:
            trainer.remember(checkpoint)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except UnpicklingError as error:  # the library reads only tensors from it, and refuses whatever could run code
            raise InvalidDataError(
                f"the checkpoint `{checkpoint}` holds something else than a trainer wrote",
                hint="remove it: the same command goes on at the one before, or begins anew",
            ) from error
    audit.check_weights(trainable_parameters(model))
    # A state that was read back has its names in another order.
    rows = [row for logs in trainer.state.log_history if (row := metrics_row(dict(sorted(logs.items())))) is not None]
    audit.seen.update(gather_object(sorted(audit.seen)))
    if settings.num_train_epochs >= 1:
        audit.check_complete(audit.seen)
    return SFTResult(
        metrics=rows, rows_trained=len(audit.seen), tokens_trained=audit.tokens(), rows_that_fit=trainer.rows_that_fit
    )


def step_of(checkpoint: Path) -> int:
    """How many updates a checkpoint has behind it."""
    return TrainerState.load_from_json(str(checkpoint / STATE)).global_step


class _ReadyTokensTrainer(AuditedTrainer, SFTTrainer):
    """TRL's trainer, reporting each batch to an audit."""

    audit: SFTAudit

    def share_of(self, part: dict[str, Any], whole: dict[str, Any], num_items_in_batch: Any) -> float:
        """The part's share of the learnt tokens; 1 where the loss is divided by their number in the whole batch already."""
        if num_items_in_batch is not None:
            return 1.0
        counted = [(batch["labels"][:, 1:] != IGNORED).sum().item() for batch in (part, whole)]
        return counted[0] / max(counted[1], 1)

    def remember(self, checkpoint: Path) -> None:
        """Count on from a checkpoint: which rows were seen, and how many tokens."""
        self.audit.seen.update(json.loads((checkpoint / SEEN).read_bytes()))
        if self.args.process_index == 0:  # what several processes have counted is added up
            state = TrainerState.load_from_json(str(checkpoint / STATE))
            self._total_train_tokens = state.log_history[-1]["num_tokens"]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no model card."""


@dataclass
class _CollatorWithRows(RowsInBatch, DataCollatorForLanguageModeling):
    """TRL's batch, and which rows of the dataset are in it."""


class _Keep(TrainerCallback):
    """Hands on each checkpoint once it is whole, with the rows seen so far; not the one after the last update."""

    def __init__(self, audit: SFTAudit, keep: Callable[[int, Path], None]) -> None:
        self.audit, self.keep = audit, keep

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_save = control.should_save and state.global_step < state.max_steps
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        seen = sorted(set(gather_object(sorted(self.audit.seen))))  # also waits until each process has written its part
        if args.process_index != 0:
            return
        (folder / SEEN).write_text(json.dumps(seen))
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing reads
        self.keep(state.global_step, folder)


def _dataset(examples: Sequence[SFTExample]) -> Dataset:
    return Dataset.from_dict(
        {
            "row": list(range(len(examples))),
            "input_ids": [list(example.token_ids) for example in examples],
            "labels": [example.labels for example in examples],
        }
    )


def _collator(tokenizer: PreTrainedTokenizerBase) -> _CollatorWithRows:
    return _CollatorWithRows(pad_token_id=padding_id(tokenizer))


def _config(
    settings: SftSettings, *, seed: int, device: torch.device, scratch: Path, division: Division | None
) -> SFTConfig:
    try:
        config = SFTConfig(
            **shared_arguments(settings, seed=seed, device=device, scratch=scratch, division=division),
            dataset_kwargs={"skip_prepare_dataset": True},
            packing=False,
            loss_type="nll",
            bf16=settings.bf16,
            save_strategy="steps",
            save_steps=settings.save_steps,
        )
    except ValueError as error:
        raise UsageError(f"TRL refuses the sft settings: {str(error).splitlines()[0]}") from error
    return on_one_device(config)
