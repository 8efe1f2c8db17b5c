"""Stage 2: the projected gradient of log π(y|x) for every response that can be part of a pair (paper §3.3).

Features are stored raw, with their norms; `select` normalises. The responses of all pairs labelled in earlier iterations
are featurized again under the current policy (V in Proposition 1 carries φ of θ_{t−1}).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from activedpo_cli import discovery
from activedpo_cli.artifacts.files import free_bytes
from activedpo_cli.artifacts.run import Run
from activedpo_cli.config import flat
from activedpo_cli.errors import ActiveDPOError
from activedpo_cli.records import FeatureRow, LabelledPairRow, Response
from activedpo_cli.seeds import derive_seed
from activedpo_cli.settings import Config
from activedpo_cli.stages.base import Context, Stage, require
from activedpo_cli.stages.candidates import label_inputs, labelled_pairs, response_inputs, usable_responses
from activedpo_cli.stages.policy import check_adapter_settings, load_policy, reference_digest

if TYPE_CHECKING:
    from torch import Tensor

SPARE_BYTES = 64 * 2**20


def columns(config: Config) -> list[str]:
    """The columns to compute: those asked for, else those that the run's method needs."""
    if config.featurize.compute is not None:
        return sorted(config.featurize.compute)
    return sorted(discovery.load("acquisition", config.select.method).NEEDS)


def settings(config: Config) -> dict[str, Any]:
    """What the features depend on."""
    return flat(config, "seed", "adapter", "featurize") | {
        "featurize.compute": columns(config),
        "generate.truncated": config.generate.truncated,
        "model.dtype": config.model.dtype,
        "model.attn_implementation": config.model.attn_implementation,
    }


def inputs(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """The responses, the policy that made them, and everything labelled before."""
    digests = {"reference": reference_digest(run)} | response_inputs(run, iteration)
    if iteration > 1:
        digests[f"iter-{iteration - 1:03d}/train"] = require(run, "train", iteration - 1)
    return digests | label_inputs(run, range(1, iteration))


def check(context: Context) -> None:
    """Refuse another adapter than the run's, and features for which there is no space."""
    from activedpo_cli.gradients.projection import make_projection

    check_adapter_settings(context.run, context.config)
    if "features" not in columns(context.config):
        return
    make_projection(context.config.featurize.projection, context.config.featurize.proj_dim, seed=0)
    pool = len(usable_responses(context.run, context.iteration, context.config))
    history = 2 * sum(1 for _ in labelled_pairs(context.run, range(1, context.iteration)))
    needed = (pool + history) * (context.config.featurize.proj_dim + 4) * 4 + SPARE_BYTES
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
    rows = [FeatureRow(row=i, response_id=r.response_id, prompt_id=r.prompt_id) for i, r in enumerate(responses)]
    summary = {"responses": len(responses), "columns": columns(context.config)}
    if columns(context.config):
        summary["labelled"] = _compute(context, responses)
    context.folder.write_rows("rows.jsonl", rows)  # last, so that a failure before the first unit leaves nothing behind
    return summary


def _compute(context: Context, responses: Sequence[Response]) -> int:
    """The columns of all responses, unit by unit, and of the pairs labelled earlier, whose number is returned."""
    engine = _Engine(context)
    size = context.config.featurize.unit_size
    units = [responses[start : start + size] for start in range(0, len(responses), size)]
    names = [f"features-{unit:05d}.safetensors" for unit in range(len(units))]
    missing = [(unit, name) for unit, name in zip(units, names, strict=True) if not context.folder.has(name)]
    done = len(responses) - sum(len(unit) for unit, _ in missing)
    context.progress.start("gradients of responses", len(responses), "responses", done)
    for unit, name in missing:
        context.folder.write_tensors(name, engine.tensors(unit), engine.header(unit))
        context.progress.advance(len(unit))
    context.progress.stop()
    return _featurize_labelled(context, engine)


def headline(summary: Mapping[str, Any]) -> str:
    """`744 responses, 60 of pairs labelled before`."""
    what = ", ".join(summary["columns"]) or "nothing computed, the method needs nothing"
    return f"{summary['responses']} responses ({what})" + (
        f", and {summary['labelled']} pairs labelled before" if summary.get("labelled") else ""
    )


def _featurize_labelled(context: Context, engine: "_Engine") -> int:
    pairs = list(labelled_pairs(context.run, range(1, context.iteration)))
    if not pairs or "features" not in columns(context.config):
        return 0
    responses = {r.response_id: r for pair in pairs for r in (pair.response_a, pair.response_b)}
    row_of = {name: row for row, name in enumerate(responses)}
    rows = [
        LabelledPairRow(
            pair_id=pair.outcome.pair_id,
            row_a=row_of[pair.response_a.response_id],
            row_b=row_of[pair.response_b.response_id],
        )
        for pair in pairs
    ]
    context.folder.write_rows("labelled.jsonl", rows)
    if not context.folder.has("labelled.safetensors"):
        unit = list(responses.values())
        context.progress.start("gradients of labelled responses", len(unit), "responses")
        context.folder.write_tensors("labelled.safetensors", engine.tensors(unit), engine.header(unit))
        context.progress.stop()
    return len(pairs)


class _Engine:
    """The policy in memory with a projection, turning responses into columns of tensors."""

    def __init__(self, context: Context) -> None:
        from activedpo_cli.gradients.projection import make_projection

        self._context, settings = context, context.config.featurize
        self._columns = columns(context.config)
        self._policy, self._tokenizer, self._device = load_policy(
            context.run, context.config, context.execution, context.iteration - 1
        )
        self._seed = derive_seed(context.config.seed, "projection")  # the same in every iteration
        self._projection = make_projection(settings.projection, settings.proj_dim, self._seed)

    def tensors(self, responses: Sequence[Response]) -> "dict[str, Tensor]":
        """The columns of some responses, one row each."""
        import torch

        size = self._context.config.featurize.batch_size
        batches = [self._batch(responses[start : start + size]) for start in range(0, len(responses), size)]
        return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}

    def header(self, responses: Sequence[Response]) -> dict[str, str]:
        """What the tensors are, for the safetensors header."""
        ids = "\n".join(response.response_id for response in responses)
        settings = self._context.config.featurize
        return {
            "row_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
            "projection": settings.projection,
            "projection_seed": str(self._seed),
            "proj_dim": str(settings.proj_dim),
            "parameters": "lora_A and lora_B of the adapter",
            "token_rule": "sum over response tokens, a generated end-of-text token included",
        }

    def _batch(self, responses: Sequence[Response]) -> "dict[str, Tensor]":
        import torch

        from activedpo_cli.gradients.batch import pad_responses
        from activedpo_cli.gradients.logps import response_logps
        from activedpo_cli.gradients.per_response import response_gradients

        batch = pad_responses(
            [response.prompt_token_ids for response in responses],
            [response.token_ids for response in responses],
            self._tokenizer.pad_token_id,
            self._device,
        )
        counts = torch.tensor([len(response.token_ids) for response in responses], dtype=torch.int64)
        if "features" not in self._columns:
            found = {"logps": response_logps(self._policy, batch)}
        else:
            gradients = response_gradients(self._policy, batch, self._projection)
            found = {
                "features": gradients.features,
                "norms": gradients.features.norm(dim=1),
                "exact_norms": gradients.exact_norms,
                "logps": gradients.logps,
            }
        _refuse_non_finite(found, responses)
        return found | {"num_tokens": counts}


def _refuse_non_finite(found: "dict[str, Tensor]", responses: Sequence[Response]) -> None:
    import torch

    for name, tensor in found.items():
        bad = (~torch.isfinite(tensor.reshape(len(responses), -1)).all(dim=1)).nonzero()
        if len(bad):
            raise ActiveDPOError(
                f"the {name} of response `{responses[int(bad[0])].response_id}` are not finite",
                hint="the policy has probably diverged: look at `rewards/margins` and `grad_norm` in the metrics of "
                "the last train stage, and train with a smaller --learning-rate",
            )


STAGE = Stage("featurize", 1, settings, inputs, work, headline, check)
