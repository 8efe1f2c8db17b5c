"""Stage 0: supervised fine-tuning of the model that the run was made with; what comes out is π_SFT (paper § 4)."""

import gc
import hashlib
import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.combinations import refuse_ineffective
from activedpo_cli.base.config import LATER_RENDERING_SETTINGS, flat, prompt_rendering, prompt_rendering_settings
from activedpo_cli.base.errors import InvalidDataError, RefusedError, UsageError
from activedpo_cli.base.numbers import counted, shown
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import AdapterSettings, Config
from activedpo_cli.engine.differences import digest_of_known, with_known_files
from activedpo_cli.engine.step import Context, Stage
from activedpo_cli.engine.units import AtOnce
from activedpo_cli.generate.backends._recorded import unsaid
from activedpo_cli.policy.policy import BaseWeights, load_base, weights_location
from activedpo_cli.policy.rendering_check import check_rendering, check_turn_end
from activedpo_cli.store.files import take_in, write_folder_with
from activedpo_cli.store.jsonl import read_json, write_json
from activedpo_cli.store.run import SFT, Run
from activedpo_cli.train import launching
from activedpo_cli.train.launching import RESULT, check_processes
from activedpo_cli.train.sft_data import Encoded, SFTRow, encode_rows, read_sft_rows
from activedpo_cli.train.step import note_smaller_steps

if TYPE_CHECKING:
    from activedpo_cli.models.encoding import AnswerEnd
    from activedpo_cli.train.sft_examples import SFTExample
    from activedpo_cli.train.sft_trainer import SFTResult

DATA = "data"
"""The name of the file among the inputs."""
READ_BY, READING = "examples are read by", "rules 5"
"""What is read from a file of examples, as an input; records without it are of examples that kept a repeated prompt."""
FILES = {"sft.data": DATA}
STOPS = "generate.stop_token_ids"
"""Records of earlier versions lack this setting, which did not look at it."""
MODEL, BASE, METRICS, HELD_OUT, BEFORE = "model", "base.json", "metrics.jsonl", "held-out.jsonl", "before.jsonl"
CHECKPOINTS = "checkpoint-*"
EXAMPLES = "examples.json"
"""The digest of the tokens that are learnt and held out, while the work is not finished."""
SAME_LOSS = 1e-3
"""How far two measurements of a loss on the same tokens may be apart, relatively."""
WEIGHTS = f"reference/{SFT}/{MODEL}"
EVALUATION_TOKENS = 4096
"""Tokens in a batch when the loss is measured."""
IRRELEVANT = ("sft.save_steps",)
"""Settings that decide where an interrupted SFT goes on, and nothing of what comes out."""


def settings(config: Config) -> dict[str, Any]:
    """What π_SFT depends on, beside the model as given and the content of the file."""
    own = {key: value for key, value in flat(config, "seed", "sft").items() if key not in IRRELEVANT}
    return own | {
        "model.dtype": config.model.dtype,
        "model.attn_implementation": config.model.attn_implementation,
        STOPS: config.generate.stop_token_ids,
        **prompt_rendering_settings(config),
    }


def inputs(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """The model as given, and the file's content: as it is, or as recorded where a finished SFT's file is gone."""
    if config.sft.data is None:
        raise UsageError("there are no examples to learn from", hint="--data FILE")
    digest = digest_of_known(run.stage(SFT, 0).manifest, "sft.data", DATA, config.sft.data)
    return {"base": run.given_base["digest"], DATA: digest, READ_BY: READING}


def check(context: Context) -> None:
    """Refuse to come too late, settings without effect, and a file that holds anything but examples."""
    check_processes(context.execution, context.settings.sft)
    refuse_late(context.run)
    if context.execution.device == "balanced":
        raise UsageError("`--device balanced` is not for *sft*, which trains on one device", hint="use auto or cuda:N")
    refuse_ineffective(context.settings, "sft")
    _rows(context)


def refuse_late(run: Run) -> None:
    """Raise RefusedError when something was made with the reference that *sft* would change."""
    if run.has_begun():
        raise RefusedError(
            f"`{run.path}` has begun with its reference as it is, and *sft* would change what everything is compared with",
            hint="fine-tune in a run of its own: `activedpo sft --run OTHER_NAME …`",
        )


def with_known_data(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """Given settings in which the file that *sft* was made from goes by the path under which it is recorded."""
    return with_known_files(run.stage(SFT, 0).manifest or run.stage(SFT, 0).started, FILES, given)


def work(context: Context) -> dict[str, Any]:
    """Train, write full weights, and measure the held-out loss of the model as given and of what was made."""
    config, folder = context.settings, context.folder
    check_processes(context.execution, config.sft)
    rows = _rows(context, context.progress.warn)
    base = load_base(weights_location(context.run, context.run.given_base), config, context.execution)
    prompts = ((row.origin, row.prompt) for row in rows if row.prompt is not None)
    check_rendering(base.tokenizer, prompts, config, context.progress, is_first=True, are_given=True)
    end = _end(context, rows, base)
    encoded = _encoded(context, rows, base, end)
    _report_lengths(context, encoded, base, end)
    train, held = encoded.split(config.sft.eval_share, derive_seed(config.seed, "sft", "split"))
    digest = _digest_of_examples(train, held)
    _refuse_other_examples(context, base, held, digest)
    before = _loss_before(context, base, held, digest)
    if not folder.has(MODEL):
        try:
            if context.execution.processes is None:
                _train(context, base, train)
            else:
                base.model.cpu()  # it would take memory that a process on the same device needs
                _train_in_processes(context, len(train))
        except Exception:
            if not folder.names(CHECKPOINTS):
                for name in (BEFORE, EXAMPLES):  # so that another attempt may have other settings
                    folder.remove(name)
            raise
    metrics = folder.read_rows(METRICS, dict)
    del base
    gc.collect()  # two models at once might not fit
    after = _loss_after(context, held)
    _write_held_out(context, held, before, after)
    _write_base(context)
    _clear(context)
    return {
        "data": config.sft.data,
        "weights": "all" if config.sft.lora_r is None else f"LoRA of rank {config.sft.lora_r}, merged",
        "examples": len(train),
        "tokens": sum(example.learnt_tokens for example in train),
        "held_out": len(held),
        "dropped": len(encoded.dropped),
        "cut": len(encoded.cut),
        "end_token_id": None if end is None else end.token_id,
        "steps": len(metrics),
        **launching.facts_of(context.execution),
        "loss": metrics[-1]["loss"],
        "held_out_loss_before": _per_token(before, held),
        "held_out_loss_after": _per_token(after, held),
    }


def headline(summary: Mapping[str, Any]) -> str:
    """`285 examples, 36 steps, held-out loss 2.31 → 1.74 nats a token (15 examples), 3 too long left out`."""
    said = [f"{counted(summary['examples'], 'example')}, {counted(summary['steps'], 'step')}"]
    before, after = summary["held_out_loss_before"], summary["held_out_loss_after"]
    if before is not None:
        said.append(
            f"held-out loss {shown(before, 3, after)} → {shown(after, 3, before)} nats a token "
            f"({counted(summary['held_out'], 'example')})"
        )
    else:
        said.append("none held out")
    said += [f"{summary['dropped']} too long left out"] if summary["dropped"] else []
    said += [f"{summary['cut']} cut"] if summary["cut"] else []
    return ", ".join(said)


def _cuts_prompts(context: Context) -> bool:
    """Whether a prompt that all answers repeat is taken off, as it is in all but what was begun before that was so."""
    started = context.folder.started
    return started is None or READ_BY in started.inputs


def _rows(context: Context, say: Callable[[str], None] = unsaid) -> list[SFTRow]:
    config = context.settings
    kwargs = config.prompts.template_kwargs
    return read_sft_rows(_data_path(config), say, cut=_cuts_prompts(context), template_kwargs=kwargs)


def _data_path(config: Config) -> Path:
    assert config.sft.data is not None
    return Path(config.sft.data)


def _end(context: Context, rows: Sequence[SFTRow], base: BaseWeights) -> "AnswerEnd | None":
    """What ends an answer, where the examples are to teach it; a template that ends it otherwise is told of."""
    from activedpo_cli.models.encoding import answer_end, stop_token_ids

    config, tokenizer, generation = context.settings, base.tokenizer, base.model.generation_config
    if not config.sft.append_eos:
        return None
    stops = stop_token_ids(tokenizer, generation, config.generate.stop_token_ids)
    prompts = ((row.origin, row.prompt) for row in rows if row.prompt is not None)
    check_turn_end(tokenizer, prompts, config, context.progress, stops, is_first=True)
    return answer_end(tokenizer, generation, config.generate.stop_token_ids, **prompt_rendering(config))


def _encoded(context: Context, rows: Sequence[SFTRow], base: BaseWeights, end: "AnswerEnd | None") -> Encoded:
    config = context.settings
    return encode_rows(
        rows,
        base.tokenizer,
        rendering=prompt_rendering(config),
        end=end,
        max_length=_max_length(config, base),
        truncate=config.sft.too_long == "truncate",
    )


def _max_length(config: Config, base: BaseWeights) -> int | None:
    from activedpo_cli.models.loading import context_length

    limits = [limit for limit in (config.sft.max_length, context_length(base.model)) if limit is not None]
    return min(limits, default=None)


def _report_lengths(context: Context, encoded: Encoded, base: BaseWeights, end: "AnswerEnd | None") -> None:
    limit, settings_of = _max_length(context.settings, base), context.settings.sft
    if settings_of.append_eos and end is None:
        context.progress.warn("the tokenizer has no end-of-text token, so the model is not taught to stop")
    for where, what in ((encoded.dropped, "left out"), (encoded.cut, "cut")):
        if where:
            shown = ", ".join(where[:3]) + (", …" if len(where) > 3 else "")
            context.progress.warn(f"{what} {counted(len(where), 'example')} of more than {limit} tokens ({shown})")
    if not encoded.examples:
        raise InvalidDataError(
            f"every example has more than {limit} tokens, so there is nothing to train on",
            hint="--too-long truncate, or shorter examples",
        )


def _refuse_other_examples(
    context: Context, base: BaseWeights, held: "Sequence[SFTExample]", digest: Mapping[str, str]
) -> None:
    """Raise RefusedError where begun work has learnt or held out other tokens than those of today.

    Work that an earlier version began has no digest: it goes on where its held-out losses are measured again as they were.
    """
    folder = context.folder
    if folder.has(EXAMPLES):
        is_same = folder.read_json(EXAMPLES) == digest
    elif folder.has(MODEL) or folder.has(BEFORE) or folder.names(CHECKPOINTS):
        is_same = _has_same_losses(context, base, held)
    else:
        return
    if not is_same:
        is_redo = folder.path != context.run.stage(SFT, context.iteration).path
        away = f"rm -r {shlex.quote(str(folder.path))} && " if is_redo else ""
        raise RefusedError(
            f"the fine-tuning begun in `{folder.path}` has learnt or held out other tokens than the examples are now",
            details=["the examples were split or encoded by another version of the program or of a library"],
            hint=away + context.anew(SFT),
        )
    if not folder.has(EXAMPLES):
        folder.write_json(EXAMPLES, digest)


def _digest_of_examples(train: "Sequence[SFTExample]", held: "Sequence[SFTExample]") -> dict[str, str]:
    def digest(examples: "Sequence[SFTExample]") -> str:
        rows = [[example.context_tokens, *example.token_ids] for example in examples]
        return "sha256:" + hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    return {"train": digest(train), "held_out": digest(held)}


def _has_same_losses(context: Context, base: BaseWeights, held: "Sequence[SFTExample]") -> bool:
    """Whether the losses that were measured before training are those of the examples that are held out now.

    Where nothing is held out they show nothing, and only what is made up to its last file can't change any more.
    """
    folder = context.folder
    if folder.has(BEFORE):
        recorded = [row["loss"] for row in folder.read_rows(BEFORE, dict)]
    elif folder.has(HELD_OUT):
        recorded = [row["loss_before"] for row in folder.read_rows(HELD_OUT, dict)]
    else:
        return False
    if len(recorded) != len(held):
        return False
    if not held:
        return folder.has(BASE)
    now = _measured(context, base, held, "held-out loss as before")
    return all(math.isclose(a, b, rel_tol=SAME_LOSS) for a, b in zip(recorded, now, strict=True))


def _loss_before(
    context: Context, base: BaseWeights, held: "Sequence[SFTExample]", digest: Mapping[str, str]
) -> list[float]:
    if not context.folder.has(BEFORE):
        losses = _measured(context, base, held, "held-out loss before")
        context.folder.write_json(EXAMPLES, digest)
        context.folder.write_json_lines(BEFORE, ({"loss": loss} for loss in losses))
    return [row["loss"] for row in context.folder.read_rows(BEFORE, dict)]


def _loss_after(context: Context, held: "Sequence[SFTExample]") -> list[float]:
    """The held-out loss of the weights as they were written, which is how every stage will load them."""
    if not held:
        return []
    made = load_base((str(context.folder.path / MODEL), None), context.settings, context.execution)
    return _measured(context, made, held, "held-out loss after")


def _measured(context: Context, weights: BaseWeights, held: "Sequence[SFTExample]", label: str) -> list[float]:
    from activedpo_cli.models.vocabulary import padding_id
    from activedpo_cli.train.sft_examples import held_out_losses

    context.progress.start(label, len(held), "examples")
    padding = padding_id(weights.tokenizer)
    losses = held_out_losses(weights.model, held, padding, EVALUATION_TOKENS, context.progress.advance)
    context.progress.stop()
    return losses


def _train(context: Context, base: BaseWeights, examples: "Sequence[SFTExample]") -> None:
    """Train from the newest checkpoint, and write the metrics, then the weights: these say that it is done."""
    folder = context.folder
    _show_steps(context, len(examples))
    with folder.scratch() as scratch:
        result, save = _trained(
            context,
            base,
            examples,
            scratch,
            on_log=lambda row: context.progress.advance(),
            on_checkpoint=lambda step, path: _keep(context, step, path),
        )
    context.progress.stop()
    note_smaller_steps(context, result.rows_that_fit)
    folder.write_json_lines(METRICS, result.metrics)
    folder.write_folder(MODEL, save)


def _show_steps(context: Context, examples: int) -> None:
    from activedpo_cli.train.sft_trainer import planned_steps, step_of

    checkpoint = _newest_checkpoint(context)
    done = step_of(checkpoint) if checkpoint else 0
    context.progress.start("SFT", planned_steps(examples, context.settings.sft), "steps", done)


def _newest_checkpoint(context: Context) -> Path | None:
    folder = context.folder
    return next((folder.path / name for name in reversed(folder.names(CHECKPOINTS))), None)


def _trained(
    context: Context,
    base: BaseWeights,
    examples: "Sequence[SFTExample]",
    scratch: Path,
    *,
    on_log: Callable[[dict[str, float]], None],
    on_checkpoint: Callable[[int, Path], None],
) -> "tuple[SFTResult, Callable[[Path], None]]":
    """What training did, and what writes the weights that it made into a folder."""
    from activedpo_cli.models.merging import write_full_weights
    from activedpo_cli.train.sft_trainer import train_sft

    config = context.settings
    number_format = base.model.dtype
    model = _trainable(base, config)
    result = train_sft(
        model,
        base.tokenizer,
        examples,
        config.sft,
        seed=derive_seed(config.seed, "sft", "train"),
        device=base.device,
        scratch=scratch,
        checkpoint=_newest_checkpoint(context),
        on_log=on_log,
        on_checkpoint=on_checkpoint,
        shard=context.execution.shard if context.execution.processes else None,
    )
    if config.sft.lora_r is None:
        model.to(number_format)
    return result, lambda destination: write_full_weights(model, base.tokenizer, destination)


def _train_in_processes(context: Context, examples: int) -> None:
    """The same by several processes, which hand on checkpoints while they work."""
    folder = context.folder
    _show_steps(context, examples)
    with folder.scratch() as scratch:

        def keep_checkpoints() -> None:
            for path in sorted(scratch.glob(CHECKPOINTS)):
                _keep(context, int(path.name.rpartition("-")[2]), path)

        advance = context.progress.advance
        launching.train_together(context, __name__, scratch, lambda row: advance(), keep_checkpoints)
        context.progress.stop()
        folder.write_json_lines(METRICS, read_json(scratch / RESULT)["metrics"])
        folder.take_in(scratch / MODEL, MODEL)


def train_together(context: Context, job: Path, scratch: Path, on_log: Callable[[dict[str, float]], None]) -> None:
    """In one of several processes: train with the others; the first one leaves in the folder of the job what was made."""
    config = context.settings
    base = load_base(weights_location(context.run, context.run.given_base), config, context.execution)
    rows = _rows(context)
    encoded = _encoded(context, rows, base, _end(context, rows, base))
    examples, _ = encoded.split(config.sft.eval_share, derive_seed(config.seed, "sft", "split"))
    result, save = _trained(
        context,
        base,
        examples,
        scratch,
        on_log=on_log,
        on_checkpoint=lambda step, path: take_in(path, job / f"checkpoint-{step:08d}"),
    )
    if context.execution.speaks_for_all:
        write_folder_with(job / MODEL, save)
        write_json(job / RESULT, asdict(result))


def _trainable(base: BaseWeights, config: Config) -> Any:
    """All weights in float32, since steps of 2e-5 would be lost in bfloat16's rounding; or a fresh adapter on top."""
    from activedpo_cli.gradients.policy_check import require_running
    from activedpo_cli.models.adapters import with_fresh_adapter
    from activedpo_cli.models.quantization import is_quantized

    sft = config.sft
    if sft.lora_r is None:
        if is_quantized(base.model):
            raise UsageError(
                "all weights are to be trained, and those of this model are quantised",
                hint="take its weights as they were before; `--quantization` then quantises what *sft* makes",
            )
        return base.model.float().requires_grad_(True)
    adapter = AdapterSettings(
        r=sft.lora_r, lora_alpha=sft.lora_alpha, lora_dropout=sft.lora_dropout, target_modules=sft.lora_modules
    )
    seed = derive_seed(config.seed, "sft", "adapter")
    policy = with_fresh_adapter(base.model, adapter, seed=seed, modules_setting="sft.lora_modules")
    require_running(policy, "sft.lora_modules")
    return policy


def _keep(context: Context, step: int, path: Path) -> None:
    name = f"checkpoint-{step:08d}"
    context.folder.take_in(path, name)
    for older in context.folder.names(CHECKPOINTS):
        if older != name:
            context.folder.remove(older)


def _write_held_out(
    context: Context, held: "Sequence[SFTExample]", before: Sequence[float], after: Sequence[float]
) -> None:
    rows = zip(held, before, after, strict=True)
    context.folder.write_json_lines(
        HELD_OUT,
        (
            {"origin": example.origin, "tokens": example.learnt_tokens, "loss_before": old, "loss_after": new}
            for example, old, new in rows
        ),
    )


def _write_base(context: Context) -> None:
    """The record by which every stage will find π_SFT, once the manifest says that it is made."""
    from activedpo_cli.models.resolve import ModelLocation, model_digest

    name = f"{context.run.given_base['name']} + SFT"
    made = ModelLocation(name=name, path=str(context.folder.path / MODEL), hub_id=None, revision=None)
    context.folder.write_json(BASE, model_digest(made) | {"path": WEIGHTS, "stored_in_run": True})


def _clear(context: Context) -> None:
    for name in (*context.folder.names(CHECKPOINTS), BEFORE, EXAMPLES):
        context.folder.remove(name)


def _per_token(losses: Sequence[float], examples: "Sequence[SFTExample]") -> float | None:
    return sum(losses) / sum(example.learnt_tokens for example in examples) if examples else None


STAGE = Stage(
    SFT,
    1,
    settings,
    inputs,
    lambda context: AtOnce(lambda: work(context)),
    headline,
    check,
    sections=(SFT,),
    later=(*LATER_RENDERING_SETTINGS, STOPS),
    also=IRRELEVANT,
    logs=(METRICS,),
    files=FILES,
    readings={READ_BY: DATA},
    goes_on_as_read=True,
)
