"""Stage 2: the projected gradient of log π(y|x) for every response that can be part of a pair (paper §3.3).

Or of what else a method needs: log-probabilities, and hidden states of π_ref. Features are stored raw, with their norms;
`select` normalises. The responses of all pairs labelled in earlier iterations are treated again under the current policy
(V in Proposition 1 carries φ of θ_{t−1}).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from activedpo_cli.base import discovery
from activedpo_cli.base.config import flat
from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.records import ExcludedResponse, FeatureRow, LabelledPairRow, Response
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Column, Config
from activedpo_cli.engine.step import Context, Stage, require
from activedpo_cli.features.exclusions import Exclusions
from activedpo_cli.features.feature_columns import FeatureColumns, read_excluded
from activedpo_cli.features.true_scores import check_scores, scores_settings
from activedpo_cli.label.step import oracle_inputs
from activedpo_cli.pairs.candidates import (
    LabelledPair,
    label_inputs,
    labelled_pairs,
    response_inputs,
    usable_responses,
)
from activedpo_cli.policy.policy import check_adapter_settings, hidden_size, reference_digest
from activedpo_cli.store.files import free_bytes
from activedpo_cli.store.run import Run

SPARE_BYTES = 64 * 2**20
QUALITY_SAMPLE = 16
QUALITY_NAME = "projection.json"
LABELLED_NAME = "labelled.safetensors"


def columns(config: Config) -> list[str]:
    """The columns to compute: those asked for, else those that the run's method needs."""
    if config.featurize.compute is not None:
        return sorted(config.featurize.compute)
    needed = discovery.load("acquisition", config.select.method).NEEDS
    return sorted(set(needed).intersection(get_args(Column)))


def settings(config: Config) -> dict[str, Any]:
    """What the features depend on; checkpointing changes how they are computed and not what they are."""
    dependent = flat(config, "seed", "adapter", "featurize")
    del dependent["featurize.gradient_checkpointing"]
    asked = scores_settings(config) if "scores" in columns(config) else {}
    return (
        dependent
        | asked
        | {
            "featurize.compute": columns(config),
            "generate.truncated": config.generate.truncated,
            "model.dtype": config.model.dtype,
            "model.attn_implementation": config.model.attn_implementation,
        }
    )


def inputs(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """The responses, the policy that made them, and everything labelled before."""
    digests = {"reference": reference_digest(run)} | response_inputs(run, iteration)
    if iteration > 1:
        digests[f"iter-{iteration - 1:03d}/train"] = require(run, "train", iteration - 1)
    if "scores" in columns(config):
        digests |= oracle_inputs(config.label.oracle, config)
    return digests | label_inputs(run, range(1, iteration))


def check(context: Context) -> None:
    """Refuse another adapter than the run's, and columns for which there is no space."""
    from activedpo_cli.gradients.projections import make_projection

    check_adapter_settings(context.run, context.config)
    wanted = columns(context.config)
    if "features" in wanted:
        make_projection(context.config.featurize.projection, context.config.featurize.proj_dim, seed=0)
    width = context.config.featurize.proj_dim if "features" in wanted else 0
    width += hidden_size(context.run) * len({"hidden", "mean_hidden"}.intersection(wanted))
    if "scores" in wanted:
        check_scores(context)
    if width:
        _check_space(context, width)


def _check_space(context: Context, width: int) -> None:
    """Refuse columns of `width` numbers a response where the disk does not take them."""
    pool = len(usable_responses(context.run, context.iteration, context.config))
    history = 2 * sum(1 for _ in labelled_pairs(context.run, range(1, context.iteration)))
    needed = (pool + history) * (width + 5) * 4 + SPARE_BYTES
    free = free_bytes(context.run.path)
    if needed > free:
        raise ActiveDPOError(
            f"features of {pool + history} responses need about {needed / 1e9:,.1f} GB in `{context.run.path}`, "
            f"{free / 1e9:,.1f} GB are free",
            hint="free some space, put the run elsewhere with --run PATH, or use a smaller --proj-dim",
        )


def work(context: Context) -> dict[str, Any]:
    """Featurize the pool unit by unit, then what was labelled before."""
    responses = usable_responses(context.run, context.iteration, context.config)
    summary: dict[str, Any] = {"responses": len(responses), "columns": columns(context.config)}
    excluded: list[ExcludedResponse] = []
    if columns(context.config):
        found = _compute(context, responses)
        excluded = found.excluded
        summary |= {"labelled": found.labelled, "excluded": len(excluded)}
        if found.quality is not None:
            summary["projection"] = found.quality
    names = {row.response_id for row in excluded}
    rows = [FeatureRow(row=i, response_id=r.response_id, prompt_id=r.prompt_id) for i, r in enumerate(responses)]
    if excluded:
        context.folder.write_rows("excluded.jsonl", sorted(excluded, key=lambda row: row.response_id))
    # Last, so that a failure before the first unit leaves nothing behind.
    context.folder.write_rows("rows.jsonl", [row for row in rows if row.response_id not in names])
    return summary


@dataclass(frozen=True)
class _Computed:
    """Pairs labelled earlier, the responses left out, and how good the projection is where that was measured."""

    labelled: int
    excluded: list[ExcludedResponse]
    quality: dict[str, Any] | None


def _compute(context: Context, responses: Sequence[Response]) -> _Computed:
    """The columns of all responses, unit by unit, and of the pairs labelled earlier."""
    source = FeatureColumns(context, columns(context.config))
    pairs = list(labelled_pairs(context.run, range(1, context.iteration)))
    labelled = list({r.response_id: r for pair in pairs for r in (pair.response_a, pair.response_b)}.values())
    quality = _quality(context, source, responses)
    exclusions = Exclusions(context.progress, len(responses) + len(labelled))
    size = context.config.featurize.unit_size
    starts = range(0, len(responses), size)
    units = {f"features-{unit:05d}.safetensors": responses[s : s + size] for unit, s in enumerate(starts)}
    missing = {name: unit for name, unit in units.items() if not context.folder.has(name)}
    for name in (name for name in units if name not in missing):
        exclusions.add(read_excluded(context.folder.read_tensor_metadata(name)))
    done = len(responses) - sum(map(len, missing.values()))
    context.progress.start(f"{_what(context.config)} of responses", len(responses), "responses", done)
    for name, unit in missing.items():
        exclusions.add(_write(context, source, name, unit))
        context.progress.advance(len(unit))
    context.progress.stop()
    if quality is not None and not context.folder.has(QUALITY_NAME):
        context.folder.write_json(QUALITY_NAME, quality)  # behind the first unit, like all else
    kept = _featurize_labelled(context, source, pairs, labelled, exclusions)
    return _Computed(kept, exclusions.rows, quality)


def _write(
    context: Context, source: FeatureColumns, name: str, responses: Sequence[Response]
) -> list[ExcludedResponse]:
    found = source.of(responses)
    context.folder.write_tensors(name, found.tensors, source.header(responses, found.excluded))
    return found.excluded


def _what(config: Config) -> str:
    return "gradients" if "features" in columns(config) else ", ".join(columns(config))


def _featurize_labelled(
    context: Context,
    source: FeatureColumns,
    pairs: Sequence[LabelledPair],
    responses: Sequence[Response],
    exclusions: Exclusions,
) -> int:
    """Columns of what was labelled before; a pair of an excluded response has no row, and so no part in V.

    Returns the number of pairs that have one.
    """
    if not pairs:
        return 0
    if not context.folder.has(LABELLED_NAME):
        context.progress.start(f"{_what(context.config)} of labelled responses", len(responses), "responses")
        _write(context, source, LABELLED_NAME, responses)
        context.progress.stop()
    excluded = read_excluded(context.folder.read_tensor_metadata(LABELLED_NAME))
    exclusions.add(excluded)
    gone = {row.response_id for row in excluded}
    row_of = {response.response_id: row for row, response in enumerate(responses) if response.response_id not in gone}
    rows = [
        LabelledPairRow(pair_id=p.outcome.pair_id, row_a=row_of[a], row_b=row_of[b])
        for p in pairs
        if (a := p.response_a.response_id) in row_of and (b := p.response_b.response_id) in row_of
    ]
    context.folder.write_rows("labelled.jsonl", rows)
    return len(rows)


def _quality(context: Context, source: FeatureColumns, responses: Sequence[Response]) -> dict[str, Any] | None:
    """How well the projection keeps angles, measured on a few responses before all others; warns where it does not."""
    if "features" not in columns(context.config):
        return None
    if context.folder.has(QUALITY_NAME):
        found: dict[str, Any] = context.folder.read_json(QUALITY_NAME)
        return found
    draw = random.Random(derive_seed(context.config.seed, "projection-quality", context.iteration))
    quality = source.quality(draw.sample(responses, min(QUALITY_SAMPLE, len(responses))))
    if quality is None:
        return None
    if not quality.is_good:
        context.progress.warn(
            f"angles between projected gradients are off by {quality.cosine_rmse:.4f}, "
            f"{quality.cosine_rmse / quality.dense:.1f} times what a dense projection would have; "
            f"{source.advice()} brings that down"
        )
    return asdict(quality)


def headline(summary: Mapping[str, Any]) -> str:
    """`744 responses, 60 of pairs labelled before`."""
    what = ", ".join(summary["columns"]) or "nothing computed, the method needs nothing"
    text = f"{summary['responses']} responses ({what})"
    if summary.get("labelled"):
        text += f", and {summary['labelled']} pairs labelled before"
    if summary.get("excluded"):
        text += f"; {summary['excluded']} left out, not finite"
    return text


STAGE = Stage("featurize", 3, settings, inputs, work, headline, check)
