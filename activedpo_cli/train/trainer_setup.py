"""What the trainers of DPO and SFT share: arguments, the schedule, watching updates, undoing a trainer's traces."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import TrainerCallback, get_scheduler

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.interruption import raise_if_requested
from activedpo_cli.base.settings import SftSettings, TrainSettings
from activedpo_cli.models.dropout import base_in_evaluation_mode
from activedpo_cli.models.placement import move
from activedpo_cli.train.division import Division, Portion, divided
from activedpo_cli.train.expected_loss import noted_logps
from activedpo_cli.train.halved_steps import HalvingTrainer
from activedpo_cli.train.shared_updates import PORTION, SharedUpdates
from activedpo_cli.train.training_audit import BatchAudit, trainable_parameters

LearningSettings = SftSettings | TrainSettings
WALL_CLOCK = ("_runtime", "_per_second")


def planned_steps(num_examples: int, settings: LearningSettings) -> int:
    """How many updates, and so how many metrics rows, training on one device will make."""
    batches = math.ceil(num_examples / settings.per_device_train_batch_size)
    per_epoch = math.ceil(batches / settings.gradient_accumulation_steps)
    return math.ceil(settings.num_train_epochs * per_epoch)


def check_schedule(settings: LearningSettings, steps: int, section: str) -> None:
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
            f"{section}.lr_scheduler_type `{settings.lr_scheduler_type}` can't be used",
            details=[str(error).splitlines()[0]],
            hint="--lr-scheduler-type linear",
        ) from error


def division_for(settings: LearningSettings, processes: int) -> Division | None:
    """How so many processes share an update; None for one. Raises UsageError where they can't."""
    if processes == 1:
        return None
    return divided(settings.per_device_train_batch_size, settings.gradient_accumulation_steps, processes)


def shared_arguments(
    settings: LearningSettings, *, seed: int, device: torch.device, scratch: Path, division: Division | None = None
) -> dict[str, Any]:
    """The arguments of either trainer: every number from the settings, one log line for each update, nothing printed."""
    sizes = division or divided(settings.per_device_train_batch_size, settings.gradient_accumulation_steps, 1)
    return {
        "output_dir": str(scratch),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "optim": "adamw_torch",
        "num_train_epochs": settings.num_train_epochs,
        "per_device_train_batch_size": sizes.batch,
        "gradient_accumulation_steps": sizes.accumulation,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "max_length": None,
        "remove_unused_columns": False,
        "dataloader_drop_last": False,
        "dataloader_pin_memory": device.type == "cuda",
        "fp16": False,
        "use_cpu": device.type == "cpu",
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "router_aux_loss_coef": 0.0,  # left out, TRL adds what a mixture of experts was pretrained with
        "eval_strategy": "no",
        **({"ddp_find_unused_parameters": False, "ddp_broadcast_buffers": False} if division else {}),
        **({"ddp_backend": "gloo"} if division and device.type == "cpu" else {}),
    }


def on_one_device(config: Any) -> Any:
    """Without a launcher, one device is meant; torch's DataParallel would be used otherwise."""
    if config.n_gpu > 1:
        config._n_gpu = 1
    return config


class Watch(TrainerCallback):
    """Hands on the metrics, and stops training before a broken update."""

    def __init__(self, audit: BatchAudit, keep: Callable[[dict[str, float]], None]) -> None:
        self.audit, self.keep = audit, keep

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the gradients."""
        self.audit.check_gradient(trainable_parameters(kwargs["model"]), first_step=state.global_step == 0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember the update, so that an error can say where training stopped."""
        self.audit.step = state.global_step + 1

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pass the metrics of one update on; the trainer's summary at the end, which holds times, is left out."""
        row = metrics_row({"step": state.global_step} | kwargs["logs"])
        if row is not None:
            self.keep(row)


def metrics_row(logs: dict[str, Any]) -> dict[str, float] | None:
    """One update's row, `step` and `epoch` first; None for the trainer's summary at the end, which holds times."""
    if any(name.endswith(WALL_CLOCK) for name in logs):
        return None
    return {"step": logs["step"], "epoch": logs["epoch"]} | logs


@contextmanager
def model_restored(model: Any, device: torch.device, *, checkpointing: bool) -> Iterator[None]:
    """Undo what a trainer leaves on a model beside new weights: its own `forward`, changed settings, hooks, its mode."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    had_forward = "forward" in vars(base)
    kept = [(config, dict(vars(config))) for config in _settings_of(base)]
    try:
        yield
    finally:
        if not had_forward:
            vars(base).pop("forward", None)
        if checkpointing:
            base.gradient_checkpointing_disable()
            base.disable_input_require_grads()
        for config, values in kept:  # pad token, use_cache, …: they would be saved with the weights
            vars(config).clear()
            vars(config).update(values)
        move(model.eval(), device)
        model.zero_grad(set_to_none=True)


@contextmanager
def formats_kept(model: Any) -> Iterator[None]:
    """Keep the number format of what is trained: TRL, set up within, narrows it to bfloat16 on a quantised base.

    Features are gradients of the adapter as it is stored, in float32.
    """
    kept = [(parameter, parameter.data) for parameter in trainable_parameters(model)]
    yield
    for parameter, values in kept:
        parameter.data = values


def _settings_of(base: Any) -> list[Any]:
    found = [base.config, base.config.get_text_config(), base.generation_config]
    return list({id(config): config for config in found if config is not None}.values())


class AuditedTrainer(SharedUpdates, HalvingTrainer):
    """A layer over one of TRL's trainers: every batch and loss passes an audit, and nothing is sent anywhere."""

    def _send_telemetry(self) -> None:
        """Send nothing."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss of the batch without its row numbers, with nothing random in the base."""
        raise_if_requested()
        own = self.accelerator.unwrap_model(model)  # type: ignore[attr-defined]
        base_in_evaluation_mode(own)
        portion: Portion | None = inputs.get(PORTION)
        is_own = portion is None or portion.weight > 0
        if is_own:
            self.audit.check_batch(inputs["row"], inputs)
        batch = {key: inputs[key] for key in inputs if key not in ("row", PORTION)}
        tokens = kwargs.get("num_items_in_batch")
        with noted_logps(own) as passes, self.at_work_on(portion):
            loss = super().compute_loss(model, batch, *args, **kwargs)  # type: ignore[misc]
        if is_own:
            processes = self.division.processes if self.division and tokens is not None else 1
            of_these = loss.detach() / processes  # a mean over processes will be taken of what is to be a sum
            self.audit.check_loss(of_these, inputs, passes, None if tokens is None else float(tokens))
        share = self.share if portion is None or tokens is not None else portion.share
        return loss if share == 1.0 else loss * share


class RowsInBatch:
    """A layer over one of TRL's collators that adds which rows of the dataset are in its batch."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch with `row`."""
        rows = {"row": torch.tensor([example["row"] for example in examples])}
        return super().torch_call(examples) | rows  # type: ignore[misc]
