"""The policy in memory with a projection, turning responses into columns of tensors."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from activedpo_cli.errors import ActiveDPOError
from activedpo_cli.records import ExcludedResponse, Response
from activedpo_cli.seeds import derive_seed
from activedpo_cli.stages.base import Context
from activedpo_cli.stages.policy import load_policy

if TYPE_CHECKING:
    from torch import Tensor

    from activedpo_cli.gradients.batch import GradientBatch
    from activedpo_cli.gradients.featurizer import Row
    from activedpo_cli.gradients.quality import ProjectionQuality


@dataclass(frozen=True)
class Columns:
    """Finite tensors with a row for each response, zeros for those that are excluded."""

    tensors: "dict[str, Tensor]"
    excluded: list[ExcludedResponse]


class FeatureColumns:
    """Computes `features` with their norms, or `logps` alone, under θ of the iteration before."""

    def __init__(self, context: Context, columns: Sequence[str]) -> None:
        from activedpo_cli.gradients.featurizer import Featurizer
        from activedpo_cli.gradients.projections import make_projection

        self._settings, self._columns = context.config.featurize, columns
        policy, tokenizer, device = load_policy(context.run, context.config, context.execution, context.iteration - 1)
        self._seed = derive_seed(context.config.seed, "projection")  # the same in every iteration
        self._featurizer = Featurizer(
            model=policy,
            projection=make_projection(
                self._settings.projection, self._settings.proj_dim, self._seed, self._settings.projection_width
            ),
            pad_token_id=int(tokenizer.pad_token_id or 0),
            device=device,
            tokens_per_batch=self._settings.tokens_per_batch,
            exact_norms=self._settings.exact_norms,
            gradient_checkpointing=self._settings.gradient_checkpointing,
        )

    def of(self, responses: Sequence[Response]) -> Columns:
        """The columns of some responses, one row each; a row that is not finite is zeroed and named."""
        import torch

        if "features" not in self._columns:
            found = {"logps": self._featurizer.logps(_rows(responses))}
        else:
            gradients = self._gradients(responses)
            found = {"features": gradients.features, "norms": gradients.features.norm(dim=1), "logps": gradients.logps}
            if gradients.exact_norms is not None:
                found["exact_norms"] = gradients.exact_norms
        excluded = _excluded(found, responses)
        counts = torch.tensor([len(response.token_ids) for response in responses], dtype=torch.int64)
        return Columns(found | {"num_tokens": counts}, excluded)

    def quality(self, responses: Sequence[Response]) -> "ProjectionQuality | None":
        """How well the projection keeps the angles between these responses' gradients."""
        return self._featurizer.quality(_rows(responses))

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

    def _gradients(self, responses: Sequence[Response]) -> "GradientBatch":
        from activedpo_cli.gradients.memory import TooLargeError

        try:
            return self._featurizer.gradients(_rows(responses))
        except TooLargeError as error:
            response = responses[error.row]
            tokens = len(response.prompt_token_ids) + len(response.token_ids)
            raise ActiveDPOError(
                f"memory does not suffice for the gradient of `{response.response_id}` alone, {tokens} tokens long",
                hint="go on with `--featurize-gradient-checkpointing`, on a device with more memory, or generate "
                "shorter responses",
            ) from error


def read_excluded(header: Mapping[str, str]) -> list[ExcludedResponse]:
    """The excluded responses that a header names."""
    return [ExcludedResponse(**row) for row in json.loads(header["excluded"])]


def _rows(responses: Sequence[Response]) -> "list[Row]":
    return [(response.prompt_token_ids, response.token_ids) for response in responses]


def _excluded(found: "dict[str, Tensor]", responses: Sequence[Response]) -> list[ExcludedResponse]:
    """Name what is not finite, and put zeros in its place."""
    import torch

    columns: dict[int, list[str]] = {}
    for name, tensor in found.items():
        for row in (~torch.isfinite(tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None]).all(dim=1)).nonzero():
            columns.setdefault(int(row), []).append(name)
    for tensor in found.values():
        tensor[list(columns)] = 0
    return [
        ExcludedResponse(response_id=responses[row].response_id, columns=names)
        for row, names in sorted(columns.items())
    ]
