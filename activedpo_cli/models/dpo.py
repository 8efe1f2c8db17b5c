"""Train the adapter with TRL's DPO on stored tokens, against π_SFT (paper Eq. 2); the only file that touches TRL.

TRL would tokenize text again, drop and cut long rows, append EOS and take the adapter it is given as the reference.
Here the dataset is handed over ready, no length is limited, and the reference is the base with adapters off.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, TrainerCallback, get_scheduler
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from activedpo_cli.errors import UsageError
from activedpo_cli.models.dropout import base_dropout_off
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.random_state import NUMPY_SEEDS, seeded_library_state
from activedpo_cli.models.training_audit import DPOExample, TrainingAudit, check_examples, trainable_parameters
from activedpo_cli.settings import TrainSettings

__all__ = ["DPOExample", "DPOResult", "planned_steps", "train_dpo"]

COPIED_REFERENCE = "ref"
WALL_CLOCK = ("_runtime", "_per_second")


@dataclass(frozen=True, kw_only=True)
class DPOResult:
    """What training did.

    `metrics` has one row for each update, in TRL's names with `step` and `epoch`; rewards and log-probabilities are
    those before the update. `rows_trained` counts the preferences seen, `tokens_trained` their response tokens.
    """

    metrics: list[dict[str, float]]
    rows_trained: int
    tokens_trained: int


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
) -> DPOResult:
    """Update the policy's adapter in place; π_ref is the same model with its adapter off.

    Equal arguments give equal adapters, bit for bit on a CPU. `on_log` gets each metrics row as it is made; `scratch`
    is a folder for the libraries. Raises ActiveDPOError when nothing is trainable, when a loss or gradient is not
    finite (before that update), when the first gradient is zero, and when rows or tokens are not those given; raises
    UsageError for settings that the libraries refuse.
    """
    check_examples(examples)
    _check_schedule(settings, planned_steps(len(examples), settings))
    trainable_parameters(policy)
    audit, rows = TrainingAudit(examples), []

    def keep(row: dict[str, float]) -> None:
        rows.append(row)
        on_log(row)

    with (
        quiet_libraries(),
        seeded_library_state(seed),
        base_dropout_off(policy),
        _policy_restored(policy, device, checkpointing=settings.gradient_checkpointing),
    ):
        config = _config(settings, seed=seed % NUMPY_SEEDS, device=device, scratch=scratch)
        trainer = _StoredTokensTrainer(
            model=policy,
            args=config,
            train_dataset=_dataset(examples),
            processing_class=tokenizer,
            data_collator=_collator(tokenizer),
            callbacks=[_Watch(audit, keep)],
        )
        trainer.audit = audit
        policy.delete_adapter(COPIED_REFERENCE)
        trainer.train()
    seen = set(gather_object(sorted(audit.seen)))
    if settings.num_train_epochs >= 1:
        audit.check_complete(seen)
    return DPOResult(metrics=rows, rows_trained=len(seen), tokens_trained=audit.tokens(seen))


def planned_steps(num_examples: int, settings: TrainSettings) -> int:
    """How many updates, and so how many metrics rows, training on one device will make."""
    batches = math.ceil(num_examples / settings.per_device_train_batch_size)
    per_epoch = math.ceil(batches / settings.gradient_accumulation_steps)
    return math.ceil(settings.num_train_epochs * per_epoch)


class _StoredTokensTrainer(DPOTrainer):
    """TRL's trainer, taking the dataset as it is and reporting each batch to an audit."""

    audit: TrainingAudit

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        """Send nothing."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.audit.check_batch(inputs["row"], inputs)
        loss = super().compute_loss(model, {key: inputs[key] for key in inputs if key != "row"}, *args, **kwargs)
        self.audit.check_loss(loss.detach())
        return loss


@dataclass
class _CollatorWithRows(DataCollatorForPreference):
    """TRL's batch, and which rows of the dataset are in it."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return super().torch_call(examples) | {"row": torch.tensor([example["row"] for example in examples])}


class _Watch(TrainerCallback):
    """Hands on the metrics, and stops training before a broken update."""

    def __init__(self, audit: TrainingAudit, keep: Callable[[dict[str, float]], None]) -> None:
        self.audit, self.keep = audit, keep

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.audit.check_gradient(trainable_parameters(kwargs["model"]), first_step=state.global_step == 0)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if any(name.endswith(WALL_CLOCK) for name in logs):  # the summary at the end
            return
        self.keep({"step": state.global_step, "epoch": logs["epoch"]} | dict(logs))


@contextmanager
def _policy_restored(policy: PeftModel, device: torch.device, *, checkpointing: bool) -> Iterator[None]:
    """Undo what the trainer leaves on the model beside new adapter weights: its own `forward`, hooks, training mode."""
    base: Any = policy.get_base_model()
    had_forward, pad_token_id = "forward" in vars(base), base.config.get_text_config().pad_token_id
    generation_pad = base.generation_config.pad_token_id
    try:
        yield
    finally:
        if COPIED_REFERENCE in policy.peft_config:
            policy.delete_adapter(COPIED_REFERENCE)
        if not had_forward:
            vars(base).pop("forward", None)
        if checkpointing:
            base.gradient_checkpointing_disable()
            base.disable_input_require_grads()
        base.config.get_text_config().pad_token_id = pad_token_id
        base.generation_config.pad_token_id = generation_pad
        policy.eval().to(device)
        policy.zero_grad(set_to_none=True)


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
    pad_token_id = tokenizer.pad_token_id
    return _CollatorWithRows(pad_token_id=0 if pad_token_id is None else pad_token_id, max_length=None)


def _check_schedule(settings: TrainSettings, steps: int) -> None:
    """Raise UsageError for a schedule that needs arguments which are no settings here; the trainer asks too late."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    try:
        get_scheduler(
            settings.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=settings.warmup_steps,
            num_training_steps=steps,
        )
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"train.lr_scheduler_type `{settings.lr_scheduler_type}` can't be used",
            details=[str(error).splitlines()[0]],
            hint="--lr-scheduler-type linear",
        ) from error


def _config(settings: TrainSettings, *, seed: int, device: torch.device, scratch: Path) -> DPOConfig:
    try:
        config = DPOConfig(
            output_dir=str(scratch),
            beta=settings.beta,
            loss_type=[settings.loss_type],
            label_smoothing=settings.label_smoothing,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            optim="adamw_torch",
            num_train_epochs=settings.num_train_epochs,
            per_device_train_batch_size=settings.per_device_train_batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            gradient_checkpointing=settings.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            max_length=None,
            precompute_ref_log_probs=False,
            disable_dropout=False,  # would silence the adapter's own, too; see `base_dropout_off`
            remove_unused_columns=False,
            dataloader_drop_last=False,
            dataloader_pin_memory=device.type == "cuda",
            bf16=False,  # the base keeps its own format, the adapter float32, as in featurize
            fp16=False,
            use_cpu=device.type == "cpu",
            seed=seed,
            data_seed=seed,
            logging_steps=1,
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
            eval_strategy="no",
        )
    except ValueError as error:
        raise UsageError(f"TRL refuses the train settings: {str(error).splitlines()[0]}") from error
    if config.n_gpu > 1:
        config._n_gpu = 1  # without a launcher, one device is meant; torch's DataParallel would be used otherwise
    return config
