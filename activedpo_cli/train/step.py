"""Stage 5: DPO on the labelled pairs (paper Eq. 2), against π_SFT in every iteration."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.combinations import READ_BESIDE_OTHERS, ineffective, refuse_ineffective
from activedpo_cli.base.config import flat
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.numbers import shown
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import FROM_OVERLAP, Config, TrainSettings
from activedpo_cli.engine.step import Context, Stage, require
from activedpo_cli.engine.units import AtOnce
from activedpo_cli.label.answered_twice import answered_twice
from activedpo_cli.pairs.candidates import LabelledPair, label_inputs, labelled_pairs, outcomes
from activedpo_cli.policy.policy import base_name, check_adapter_settings, load_policy, reference_digest
from activedpo_cli.statistics.wrong_answers import WrongAnswers, wrong_answers
from activedpo_cli.store.run import SFT, Run
from activedpo_cli.store.stage_folder import StageFolder

if TYPE_CHECKING:
    from activedpo_cli.train.training_audit import DPOExample

METRICS = "metrics.jsonl"
ANSWERED_TWICE = "answers given twice"
"""The name among the inputs of what it is estimated from."""
VERSION = 2
ASKS_IN_EVERY_EPOCH = 1
"""The version that asked π_ref about a pair in every epoch, and not only when training first came to it."""
NOTED_REWARD = 0.02
"""Nats by which the first step of training may differ from the reference before it is noted."""


def settings(config: Config) -> dict[str, Any]:
    """What the new adapter depends on."""
    return flat(config, "seed", "adapter", "train") | {
        "model.dtype": config.model.dtype,
        "model.attn_implementation": config.model.attn_implementation,
    }


def inputs(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """π_ref, the adapter to continue from, and the labels to train on."""
    digests = {"reference": reference_digest(run)}
    if config.train.start == "previous" and iteration > 1:
        digests[f"iter-{iteration - 1:03d}/train"] = require(run, "train", iteration - 1)
    digests |= label_inputs(run, _iterations(iteration, config))
    if config.train.label_smoothing == FROM_OVERLAP:
        digests[ANSWERED_TWICE] = answered_twice(run, iteration).digest
    return digests


def check(context: Context) -> None:
    """Refuse another adapter than the run's, settings that the loss does not read, and to train on nothing."""
    check_adapter_settings(context.run, context.settings)
    check_effect(context.run, context.iteration, context.settings, context.progress)
    if context.settings.train.label_smoothing == FROM_OVERLAP:
        _wrong_answers(context)
    if not _examples(context):
        again = f"`{context.run.next_command('label', context.iteration)} --force`"
        ways = [f"ask again with {again}"]
        if any(row.outcome == "tie" for row in outcomes(context.run, context.iteration)):
            ways.append("train on ties too with --include-ties")
        if context.iteration > 1 and context.settings.train.labels == "new":
            ways.append("train on earlier labels with --labels all")
        raise InvalidDataError(
            f"none of the answers of iteration {context.iteration} can be trained on: no response was preferred",
            hint=", or ".join(ways),
        )


def check_effect(run: Run, iteration: int, config: Config, progress: Progress) -> None:
    """Refuse settings without effect; where an earlier iteration was trained with the same ones, warn."""
    problems = ineffective(config, "train")
    if not problems:
        return
    now = {key: value for key, value in flat(config, "train").items() if key in READ_BESIDE_OTHERS}
    records = [run.stage("train", t).manifest for t in range(1, iteration)]
    if any(record and now.items() <= record.settings.items() for record in records):
        progress.warn("settings of training have no effect, as in earlier iterations: " + "; ".join(problems))
    else:
        refuse_ineffective(config, "train")


def work(context: Context) -> dict[str, Any]:
    """Train, and write the adapter with its tokenizer and the metrics of every step."""
    from activedpo_cli.models.adapters import save_adapter
    from activedpo_cli.train.dpo_trainer import planned_steps, train_dpo

    run, config, iteration = context.run, context.settings, context.iteration
    examples = _examples(context)
    _note_other_losses(context)
    training, about_answers = _with_wrong_share(context)
    start = iteration - 1 if config.train.start == "previous" else 0
    policy, tokenizer, device = load_policy(context, start, trainable=True)
    context.progress.start("DPO", planned_steps(len(examples), training), "steps")
    with context.folder.scratch() as scratch:
        result = train_dpo(
            policy,
            tokenizer,
            examples,
            training,
            seed=derive_seed(config.seed, "train", iteration),
            device=device,
            on_log=lambda row: context.progress.advance(),
            scratch=scratch,
            asks_reference_once=_version(context) > ASKS_IN_EVERY_EPOCH,
        )
    context.progress.stop()
    note_smaller_steps(context, result.rows_that_fit)

    def save(destination: Path) -> None:
        save_adapter(policy, destination, base_name=base_name(run), tokenizer=tokenizer)

    context.folder.write_json_lines(METRICS, result.metrics)
    context.folder.write_folder("adapter", save)
    last = result.metrics[-1]
    return {
        "preferences": result.rows_trained,
        "tokens": result.tokens_trained,
        "labels": config.train.labels,
        "start": config.train.start,
        "reference": run.base["name"],
        "steps": len(result.metrics),
        **about_answers,
        **({"rows_that_fit": result.rows_that_fit} if result.rows_that_fit else {}),
        **{key: last[key] for key in ("loss", "rewards/margins", "rewards/accuracies") if key in last},
    }


def _version(context: Context) -> int:
    """The version by which this training goes, which is that of whoever began it."""
    started = context.folder.started
    return VERSION if started is None else started.stage_version


def _with_wrong_share(context: Context) -> tuple[TrainSettings, dict[str, Any]]:
    """The settings of training with the share of wrong labels as a number, and what the record says of an estimated one."""
    settings = context.settings.train
    if settings.label_smoothing != FROM_OVERLAP:
        return settings, {}
    found, left_out = _wrong_answers(context)
    if found.is_cut:
        context.progress.warn(
            f"answers to {found.differing} of {found.pairs} pairs that were answered twice differ, hardly fewer than coins "
            f"would: training assumes that {100 * found.share:.0f} % are wrong, the most it does"
        )
    facts = {
        "share": round(found.share, 6),
        "low": round(found.interval.low, 6),
        "high": round(found.interval.high, 6),
        "differing": found.differing,
        "pairs": found.pairs,
        "left_out": left_out,
        "is_cut": found.is_cut,
    }
    return settings.model_copy(update={"label_smoothing": facts["share"]}), {"wrong_answers": facts}


def _wrong_answers(context: Context) -> tuple[WrongAnswers, int]:
    """The estimated share of wrong answers, and how many pairs without a preference it leaves out.

    Raises InvalidDataError where no pair was answered twice.
    """
    twice = answered_twice(context.run, context.iteration)
    if not twice.decided:
        ties = f"; of {twice.left_out} that were, an answer names no response" if twice.left_out else ""
        raise InvalidDataError(
            f"the share of wrong answers can't be estimated: no pair was answered twice so far{ties}",
            hint=f"have pairs answered twice with `{context.run.next_command('label', context.iteration)} --force --overlap "
            "30`, or say what to assume with `--label-smoothing 0.1`",
        )
    return wrong_answers(twice.differing, len(twice.decided)), twice.left_out


def note_smaller_steps(context: Context, rows: int | None) -> None:
    """Say that memory did not suffice for whole batches, where it did not."""
    if rows is not None:
        context.progress.warn(
            f"memory did not suffice for whole batches: their steps were done {rows} rows at a time, which add up to the "
            "same updates beyond rounding and dropout"
        )


def _note_other_losses(context: Context) -> None:
    """Warn of what an earlier version trained on more than Eq. 2 or a likelihood, as it did mixtures of experts."""
    run, beside = context.run, "with the mixture of experts' load-balancing loss beside"
    if "aux_loss" in _first_step(run.stage(SFT, 0)):
        context.progress.warn(
            f"the reference was fine-tuned {beside} the likelihood, as an earlier version did; only a run of its own makes "
            "another: `activedpo sft --run OTHER_NAME …`"
        )
    for iteration in range(1, context.iteration):
        first, again = _first_step(run.stage("train", iteration)), run.next_command("train", iteration)
        if "aux_loss" in first:
            context.progress.warn(
                f"iteration {iteration} was trained {beside} DPO's, as an earlier version did; "
                f"`{again} --force` trains it on DPO's alone"
            )
        if iteration == 1 and abs(first.get("rewards/chosen", 0.0)) > NOTED_REWARD * context.settings.train.beta:
            context.progress.warn(
                "iteration 1 was trained with noise that the model's architecture adds in training, as an earlier version "
                f"did: rewards at its first step are not 0; `{again} --force` trains it without"
            )


def _first_step(folder: StageFolder) -> dict[str, Any]:
    """What was logged of the first step; nothing where the log is damaged or gone, which stops nobody."""
    rows: list[dict[str, Any]] = []
    with suppress(OSError, InvalidDataError):
        rows = folder.read_rows(METRICS, dict)[:1]
    return rows[0] if rows else {}


def headline(summary: Mapping[str, Any]) -> str:
    """`30 preferences, 16 steps, margin 0.42, 18 % of answers taken as wrong`."""
    margin = summary.get("rewards/margins")
    wrong = summary.get("wrong_answers")
    return (
        f"{summary['preferences']} preferences, {summary['steps']} steps"
        + (f", last margin {shown(margin, 2)}" if margin is not None else "")
        + (f", {100 * wrong['share']:.0f} % of answers taken as wrong" if wrong else "")
    )


def _iterations(iteration: int, config: Config) -> range:
    return range(1 if config.train.labels == "all" else iteration, iteration + 1)


def _examples(context: Context) -> "list[DPOExample]":
    pairs = labelled_pairs(context.run, _iterations(context.iteration, context.settings))
    found = (_example(context, pair) for pair in pairs)
    return [example for example in found if example is not None]


def _example(context: Context, pair: LabelledPair) -> "DPOExample | None":
    from activedpo_cli.train.training_audit import DPOExample

    preferred = pair.outcome.preferred_id
    if preferred is None:
        if pair.outcome.outcome != "tie" or not context.settings.train.include_ties:
            return None
        coin = derive_seed(context.settings.seed, "tie", pair.outcome.pair_id) % 2
        preferred = (pair.response_a, pair.response_b)[coin].response_id
    chosen, rejected = pair.response_a, pair.response_b
    if preferred == rejected.response_id:
        chosen, rejected = rejected, chosen
    return DPOExample(
        pair_id=pair.outcome.pair_id,
        prompt_ids=chosen.prompt_token_ids,
        chosen_ids=chosen.token_ids,
        rejected_ids=rejected.token_ids,
    )


STAGE = Stage(
    "train",
    VERSION,
    settings,
    inputs,
    lambda context: AtOnce(lambda: work(context)),
    headline,
    check,
    sections=("adapter", "train"),
    logs=(METRICS,),
    standing=(ASKS_IN_EVERY_EPOCH,),
)
