"""Computes the columns of *featurize*: projected gradients, log-probabilities, hidden states, oracle scores."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import ExcludedResponse, Response
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.engine.step import Context
from activedpo_cli.features.true_scores import scores
from activedpo_cli.policy.policy import load_policy

if TYPE_CHECKING:
    from torch import Tensor

    from activedpo_cli.gradients.featurizer import Row
    from activedpo_cli.gradients.quality import ProjectionQuality


TOLERATED_SHARE = 0.01
"""The largest share of responses that may be not finite; with more the stage stops."""


@dataclass(frozen=True)
class Columns:
    """Finite tensors with a row for each response, zeros for those that are excluded."""

    tensors: "dict[str, Tensor]"
    excluded: list[ExcludedResponse]


class FeatureColumns:
    """Computes `features` with their norms and `logps` under θ of the iteration before, the other columns under π_ref."""

    def __init__(self, context: Context, columns: Sequence[str]) -> None:
        from activedpo_cli.gradients.columns import ResponseColumns
        from activedpo_cli.gradients.featurizer import Featurizer
        from activedpo_cli.gradients.policy_check import check_policy
        from activedpo_cli.gradients.projections import make_projection
        from activedpo_cli.models.vocabulary import padding_id

        self._context, self._settings, self._columns = context, context.settings.featurize, set(columns)
        policy, tokenizer, device = load_policy(context, context.iteration - 1)
        self._seed = derive_seed(context.settings.seed, "projection")  # the same in every iteration
        alone = frozenset[str]()
        if "features" in self._columns:
            found = check_policy(policy)
            alone = found.alone
            _note_slow_passes(context.progress, found.slow)
        featurizer = Featurizer(
            model=policy,
            projection=make_projection(
                self._settings.projection, self._settings.proj_dim, self._seed, self._settings.projection_width
            ),
            pad_token_id=padding_id(tokenizer),
            device=device,
            tokens_per_batch=self._settings.tokens_per_batch,
            exact_norms=self._settings.exact_norms,
            gradient_checkpointing=self._settings.gradient_checkpointing,
            alone=alone,
        )
        is_reference = context.iteration == 1  # the initial adapter has B = 0
        self._source = ResponseColumns(policy, featurizer, self._columns, is_reference)

    def of(self, responses: Sequence[Response]) -> Columns:
        """The columns of some responses, one row each; a row that is not finite is zeroed and named."""
        import torch

        with _naming_what_is_too_large(responses):
            found = self._source.of(_rows(responses))
        if "scores" in self._columns:
            found["scores"] = scores(self._context, responses)
        excluded = _excluded(found, responses)
        counts = torch.tensor([len(response.token_ids) for response in responses], dtype=torch.int64)
        return Columns(found | {"num_tokens": counts}, excluded)

    def quality(self, responses: Sequence[Response]) -> "ProjectionQuality | None":
        """How well the projection keeps the angles between these responses' gradients; None where it can't be told.

        That takes more memory than features do, and must not stop what would fit without it.
        """
        from activedpo_cli.gradients.memory import TooLargeError

        try:
            return self._source.featurizer.quality(_rows(responses))
        except TooLargeError:
            return None

    def advice(self) -> str:
        """The flags that bring the projection's error down."""
        from activedpo_cli.gradients.quality import advice

        return advice(self._source.policy, self._source.featurizer.projection)

    def header(self, responses: Sequence[Response], excluded: Sequence[ExcludedResponse]) -> dict[str, str]:
        """What the tensors are, for the safetensors header."""
        ids = "\n".join(response.response_id for response in responses)
        return {
            "row_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
            "projection": self._settings.projection,
            "projection_seed": str(self._seed),
            "projection_width": str(self._settings.projection_width),
            "proj_dim": str(self._settings.proj_dim),
            "parameters": "lora_A and lora_B of the adapter",
            "token_rule": "sum over response tokens, a generated end-of-text token included",
            "excluded": json.dumps([asdict(row) for row in excluded]),
        }


class Exclusions:
    """Responses left out because what was computed of them is not finite: each is named, and too many stop the stage."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self._rows: list[ExcludedResponse] = []

    def add(self, rows: Sequence[ExcludedResponse]) -> None:
        """Note further responses; raises InvalidDataError once they are more than one in a hundred."""
        for row in rows:
            self._progress.warn(f"`{row.response_id}` is left out: its {', '.join(row.columns)} are not finite")
        self._rows += rows
        self.check(self._rows)

    def check(self, rows: Sequence[ExcludedResponse]) -> None:
        """Raise InvalidDataError where so many are left out."""
        if len(rows) > TOLERATED_SHARE * self._total:
            raise InvalidDataError(
                f"{len(rows)} of {self._total} responses are not finite, more than {TOLERATED_SHARE:.0%}",
                details=[f"{row.response_id}: {', '.join(row.columns)}" for row in rows[:5]],
                hint="after an iteration of training the policy has probably diverged: look at `rewards/margins` and "
                "`grad_norm` in metrics.jsonl of train, and train with a smaller --learning-rate; before any, try "
                "`--dtype float32` in a new run",
            )


def computed_columns(asked_for: Sequence[str]) -> set[str]:
    """The columns that are computed when these are asked for: gradients always bring `logps` with them."""
    return {*asked_for, "logps"} if "features" in asked_for else set(asked_for)


def read_excluded(header: Mapping[str, str]) -> list[ExcludedResponse]:
    """The excluded responses that a header names."""
    return [ExcludedResponse(**row) for row in json.loads(header["excluded"])]


@contextmanager
def _naming_what_is_too_large(responses: Sequence[Response]) -> Iterator[None]:
    from activedpo_cli.gradients.memory import TooLargeError

    try:
        yield
    except TooLargeError as error:
        response = responses[error.row]
        tokens = len(response.prompt_token_ids) + len(response.token_ids)
        raise ActiveDPOError(
            f"memory does not suffice for the columns of `{response.response_id}` alone, {tokens} tokens long",
            hint="go on with `--featurize-gradient-checkpointing`, on a device with more memory, or generate "
            "shorter responses",
        ) from error


def _note_slow_passes(progress: Progress, matrices: Sequence[str]) -> None:
    if matrices:
        progress.warn(
            f"{len(matrices)} of the adapter's matrices, first `{matrices[0]}`, see tokens of several responses at once, so "
            "that each response has a pass of its own: exact, and slower; `adapter.target_modules` without such layers is "
            "featurized in batches"
        )


def _rows(responses: Sequence[Response]) -> "list[Row]":
    return [(response.prompt_token_ids, response.token_ids) for response in responses]


def _excluded(found: "dict[str, Tensor]", responses: Sequence[Response]) -> list[ExcludedResponse]:
    """Name what is not finite, and put zeros in its place."""
    from activedpo_cli.gradients.columns import zero_what_is_not_finite

    return [
        ExcludedResponse(response_id=responses[row].response_id, columns=names)
        for row, names in zero_what_is_not_finite(found).items()
    ]
