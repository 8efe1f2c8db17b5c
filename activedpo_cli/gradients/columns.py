"""What methods ask about responses, as columns: gradients, log-probabilities and states, under a policy and under π_ref."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor

from activedpo_cli.gradients.featurizer import Featurizer, Row
from activedpo_cli.models.adapters import reference_mode


@dataclass(frozen=True)
class ResponseColumns:
    """Computes `features` with their norms and `logps` under a policy, the other columns under π_ref, its adapter off.

    Attributes:
        policy: The model with its adapter.
        featurizer: How it is asked.
        wanted: Names of columns, which `features` bring `logps` and `norms` beside.
        is_reference: Whether the adapter changes nothing: `logps` then serve as `ref_logps`, and rewards are exactly 0.

    """

    policy: PeftModel
    featurizer: Featurizer
    wanted: Collection[str]
    is_reference: bool

    def of(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The columns of some responses, a row each, on the CPU; raises TooLargeError where one does not fit alone."""
        found = self._under_policy(rows)
        return found | self._under_reference(rows, found.get("logps"))

    def _under_policy(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        if "features" in self.wanted:
            gradients = self.featurizer.gradients(rows)
            found = {"features": gradients.features, "norms": gradients.features.norm(dim=1), "logps": gradients.logps}
            return found if gradients.exact_norms is None else found | {"exact_norms": gradients.exact_norms}
        if "logps" in self.wanted:
            return _computed(logps=self.featurizer.forward(rows, logps=True).logps)
        return {}

    def _under_reference(self, rows: Sequence[Row], logps: Tensor | None) -> dict[str, Tensor]:
        known = logps if self.is_reference and "ref_logps" in self.wanted else None
        needs_logps = "ref_logps" in self.wanted and known is None
        needs_hidden, needs_mean = "hidden" in self.wanted, "mean_hidden" in self.wanted
        if not (needs_logps or needs_hidden or needs_mean):
            return _computed(ref_logps=known)
        with reference_mode(self.policy):
            found = self.featurizer.forward(rows, logps=needs_logps, hidden=needs_hidden, mean_hidden=needs_mean)
        ref_logps = found.logps if known is None else known
        return _computed(ref_logps=ref_logps, hidden=found.hidden, mean_hidden=found.mean_hidden)


def zero_what_is_not_finite(found: dict[str, Tensor]) -> dict[int, list[str]]:
    """Put zeros into every column of each row that is not finite in one of them; returns these rows with its columns."""
    columns: dict[int, list[str]] = {}
    for name, tensor in found.items():
        for row in (~torch.isfinite(tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None]).all(dim=1)).nonzero():
            columns.setdefault(int(row), []).append(name)
    for tensor in found.values():
        tensor[list(columns)] = 0
    return dict(sorted(columns.items()))


def _computed(**columns: Tensor | None) -> dict[str, Tensor]:
    """The columns that were computed, each copied into memory of its own, as safetensors files need it."""
    return {name: tensor.clone() for name, tensor in columns.items() if tensor is not None}
