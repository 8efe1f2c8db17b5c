"""Stage 2: the projected gradient of log π(y|x) for every response that can be part of a pair (paper §3.3).

Or of what else a method needs: log-probabilities, and hidden states of π_ref. Features are stored raw, with their norms;
`select` normalises. The responses of all pairs labelled in earlier iterations are treated again under the current policy
(V in Proposition 1 carries φ of θ_{t−1}).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from activedpo_cli.base import discovery
from activedpo_cli.base.config import LATER_MODEL_SETTINGS, flat, loading_settings
from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.records import ExcludedResponse, FeatureRow, LabelledPairRow, Response
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Column, Config
from activedpo_cli.engine.step import Context, Stage, always, require
from activedpo_cli.engine.units import AtOnce, Unit, UnitWork, Work
from activedpo_cli.features.columns import Exclusions, FeatureColumns, read_excluded
from activedpo_cli.features.true_scores import check_scores, scores_settings
from activedpo_cli.label.step import oracle_inputs
from activedpo_cli.pairs.candidates import (
    label_inputs,
    labelled_pairs,
    response_inputs,
    usable_responses,
)
from activedpo_cli.policy.policy import check_adapter_settings, hidden_size, reference_digest
from activedpo_cli.store.files import free_bytes
from activedpo_cli.store.run import Run

SPARE_SHARE, SPARE_BYTES = 0.05, 2**16
"""What records and headers take beside the columns: a share of these, and a few small files."""
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
            **loading_settings(config),
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

    check_adapter_settings(context.run, context.settings)
    wanted = columns(context.settings)
    if "features" in wanted:
        make_projection(context.settings.featurize.projection, context.settings.featurize.proj_dim, seed=0)
    width = context.settings.featurize.proj_dim if "features" in wanted else 0
    width += hidden_size(context.run) * len({"hidden", "mean_hidden"}.intersection(wanted))
    if "scores" in wanted:
        check_scores(context)
    if width:
        _check_space(context, width)


def _check_space(context: Context, width: int) -> None:
    """Refuse columns of `width` numbers a response where the disk does not take them."""
    pool = len(_usable_responses(context))
    history = 2 * sum(1 for _ in labelled_pairs(context.run, range(1, context.iteration)))
    needed = round((pool + history) * (width + 5) * 4 * (1 + SPARE_SHARE)) + SPARE_BYTES
    free = free_bytes(context.run.path)
    if needed > free:
        raise ActiveDPOError(
            f"features of {pool + history} responses need about {_in_words(needed)} in `{context.run.path}`, "
            f"{_in_words(free)} are free",
            hint="free some space, put the run elsewhere with --run PATH, or use a smaller --proj-dim",
        )


def _in_words(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def _usable_responses(context: Context) -> list[Response]:
    drop_truncated = context.settings.generate.truncated == "drop"
    return usable_responses(context.run, context.iteration, drop_truncated=drop_truncated)


def open_work(context: Context) -> Work:
    """Featurize unit by unit; where the method needs nothing, only the rows are written down."""
    if columns(context.settings):
        return _Featurizing(context)
    return AtOnce(lambda: _rows_alone(context))


def _rows_alone(context: Context) -> dict[str, Any]:
    responses = _usable_responses(context)
    _write_rows(context, responses, [])
    return {"responses": len(responses), "columns": []}


class _Featurizing(UnitWork):
    """The columns of all responses, unit by unit, and of the pairs labelled earlier."""

    def __init__(self, context: Context) -> None:
        self.folder, self._context, self._config = context.folder, context, context.settings
        self._columns = columns(context.settings)
        self._responses = _usable_responses(context)
        self._pairs = list(labelled_pairs(context.run, range(1, context.iteration)))
        labelled = {r.response_id: r for pair in self._pairs for r in (pair.response_a, pair.response_b)}
        self._labelled = list(labelled.values())
        self._source = FeatureColumns(context, self._columns)
        self._quality = self._measured_quality()
        self._exclusions = Exclusions(context.progress, len(self._responses) + len(self._labelled))
        for name in (unit.name for unit in self.units() if self.folder.has(unit.name)):
            self._exclusions.add(self._excluded(name))

    def counted(self) -> tuple[str, str]:
        what = "gradients" if "features" in self._columns else ", ".join(self._columns)
        return f"{what} of responses", "responses"

    def units(self) -> list[Unit]:
        """A file for `featurize.unit_size` responses each, and one for all that were labelled before."""
        size = self._config.featurize.unit_size
        of_pool = [
            Unit(f"features-{number:05d}.safetensors", len(self._responses[start : start + size]))
            for number, start in enumerate(range(0, len(self._responses), size))
        ]
        return [*of_pool, *([Unit(LABELLED_NAME, len(self._labelled))] if self._pairs else [])]

    def do(self, unit: Unit) -> None:
        responses = self._responses_of(unit)
        found = self._source.of(responses)
        self.folder.write_tensors(unit.name, found.tensors, self._source.header(responses, found.excluded))
        if self._quality is not None and not self.folder.has(QUALITY_NAME):
            self.folder.write_json(
                QUALITY_NAME, self._quality
            )  # behind a unit, so that a failure leaves nothing behind
        self._exclusions.add(found.excluded)

    def finish(self) -> dict[str, Any]:
        summary: dict[str, Any] = {"responses": len(self._responses), "columns": self._columns}
        excluded = [row for unit in self.units() for row in self._excluded(unit.name)]
        self._exclusions.check(excluded)  # also those that other processes came upon
        gone = {row.response_id for row in excluded}
        if self._quality is not None and not self.folder.has(QUALITY_NAME):
            self.folder.write_json(QUALITY_NAME, self._quality)
        summary |= {"labelled": self._write_labelled_rows(gone), "excluded": len(excluded)}
        if self._quality is not None:
            summary["projection"] = self._quality
        _write_rows(self._context, self._responses, excluded)
        return summary

    def _responses_of(self, unit: Unit) -> Sequence[Response]:
        if unit.name == LABELLED_NAME:
            return self._labelled
        start = int(unit.name.removesuffix(".safetensors").rpartition("-")[2]) * self._config.featurize.unit_size
        return self._responses[start : start + unit.size]

    def _excluded(self, name: str) -> list[ExcludedResponse]:
        return read_excluded(self.folder.read_tensor_metadata(name))

    def _write_labelled_rows(self, gone: set[str]) -> int:
        """Which rows belong to which labelled pair; one of an excluded response has none, and so no part in V.

        Returns the number of pairs that have rows.
        """
        if not self._pairs:
            return 0
        row_of = {r.response_id: row for row, r in enumerate(self._labelled) if r.response_id not in gone}
        rows = [
            LabelledPairRow(pair_id=pair.outcome.pair_id, row_a=row_of[a], row_b=row_of[b])
            for pair in self._pairs
            if (a := pair.response_a.response_id) in row_of and (b := pair.response_b.response_id) in row_of
        ]
        self.folder.write_rows("labelled.jsonl", rows)
        return len(rows)

    def _measured_quality(self) -> dict[str, Any] | None:
        """How well the projection keeps angles, measured on a few responses before all others; warns where it does not."""
        if "features" not in self._columns:
            return None
        if self.folder.has(QUALITY_NAME):
            known: dict[str, Any] = self.folder.read_json(QUALITY_NAME)
            return known
        draw = random.Random(derive_seed(self._config.seed, "projection-quality", self._context.iteration))
        sample = draw.sample(self._responses, min(QUALITY_SAMPLE, len(self._responses)))
        quality = self._source.quality(sample)
        if quality is None:
            return None
        if not quality.is_good:
            self._context.progress.warn(
                f"angles between projected gradients are off by {quality.cosine_rmse:.4f}, "
                f"{quality.cosine_rmse / quality.dense:.1f} times what a dense projection would have; "
                f"{self._source.advice()} brings that down"
            )
        return asdict(quality)


def _write_rows(context: Context, responses: Sequence[Response], excluded: Sequence[ExcludedResponse]) -> None:
    """Which row of the columns belongs to which response, and which responses have none."""
    gone = {row.response_id for row in excluded}
    rows = [FeatureRow(row=i, response_id=r.response_id, prompt_id=r.prompt_id) for i, r in enumerate(responses)]
    if excluded:
        context.folder.write_rows("excluded.jsonl", sorted(excluded, key=lambda row: row.response_id))
    context.folder.write_rows("rows.jsonl", [row for row in rows if row.response_id not in gone])


def headline(summary: Mapping[str, Any]) -> str:
    """`744 responses, 60 of pairs labelled before`."""
    what = ", ".join(summary["columns"]) or "nothing computed, the method needs nothing"
    text = f"{summary['responses']} responses ({what})"
    if summary.get("labelled"):
        text += f", and {summary['labelled']} pairs labelled before"
    if summary.get("excluded"):
        text += f"; {summary['excluded']} left out, not finite"
    return text


STAGE = Stage(
    "featurize",
    3,
    settings,
    inputs,
    open_work,
    headline,
    check,
    sections=("adapter", "featurize"),
    also=("featurize.gradient_checkpointing",),
    later=LATER_MODEL_SETTINGS,
    is_shared=always,
    is_done_here=lambda config: not columns(config),
)
