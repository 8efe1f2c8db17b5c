"""Compares gradients with what they stand for: differences of log-probabilities when the weights are moved.

A kernel without a backward pass, or with a wrong one, leaves log-probabilities right and gradients short; only a
difference shows it. Each matrix moves along its own gradient, forward or back at random, so that errors of single matrices
do not hide behind the others.
"""

from collections.abc import Collection, Sequence

import torch
from peft import PeftModel
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.gradients.logps import response_logps
from activedpo_cli.gradients.lora_matrices import LoraMatrix, MatrixShape
from activedpo_cli.gradients.per_response import backward_pass, is_taken_alone
from activedpo_cli.gradients.trial import made_up_responses, moved

CHANGES = {torch.float64: (1e-3, 1e-4), torch.float32: (0.02, 0.005, 0.001)}
ROUGH_CHANGES = (1.0, 0.5, 0.25, 0.1)
"""By how many nats differences move log-probabilities; half precision needs more, to stand out of its rounding."""
TOLERANCE = {torch.float64: 0.01, torch.float32: 0.05}
ROUGH_TOLERANCE = 0.2
"""What differences may be off by, as a share of the gradient's size along the direction."""
DIRECTIONS = 3
CLEARLY = 4
"""How many times smaller than tolerated the error of one direction is where it settles the matter."""
SMALL = 0.1
"""An example whose gradient is a smaller share of the largest is measured by that share: rounding is of its size."""
ROUNDINGS = 64


def derivative_error(policy: PeftModel, matrices: Sequence[LoraMatrix], gradients: "Gradients") -> float | None:
    """By how much log-probabilities change otherwise than the gradients of `matrices` say; None where they do not.

    As a share of the gradient's size along the direction: of differences in several directions and of several sizes, the
    best size for each example and direction, and the median over these. Wide differences are off where the function is
    curved, narrow ones by rounding, and any between whose ends a router chooses another expert. A first direction that is
    clearly right settles it. Numbers that are not finite say nothing here: *featurize* names the responses they are of.
    """
    dtype = _number_format(policy)
    tolerance = TOLERANCE.get(dtype, ROUGH_TOLERANCE)
    slopes = _Slopes(matrices, gradients)
    errors = torch.full((DIRECTIONS, gradients.examples), torch.inf, dtype=torch.float64)
    for change in CHANGES.get(dtype, ROUGH_CHANGES):
        for seed in range(DIRECTIONS):
            errors[seed] = torch.minimum(errors[seed], slopes.error(policy, change, seed))
            if errors[seed].isnan().any():
                return None
            if seed == 0 and errors[0].median() <= tolerance / CLEARLY:
                return None
        if errors.median() <= tolerance:
            return None
    return float(errors.median())


def moves_log_probabilities(policy: PeftModel, matrices: Sequence[LoraMatrix]) -> bool:
    """Whether log-probabilities depend on matrices at all; rounding alone is nothing."""
    batch, draw = made_up_responses(policy), torch.Generator().manual_seed(1)
    before = response_logps(policy, batch).cpu()
    changes = (0.1 * torch.randn(matrix.module.weight.shape, generator=draw) for matrix in matrices)
    with moved(matrices, changes):
        after = response_logps(policy, batch).cpu()
    rounding = ROUNDINGS * torch.finfo(_number_format(policy)).eps
    return bool(((after - before).abs() > rounding * (1 + before.abs())).any())


class Gradients:
    """A sink that keeps the factors of each matrix's gradients, of passes of all examples or of one after the other."""

    def __init__(self, policy: PeftModel, matrices: Sequence[LoraMatrix], alone: Collection[str]) -> None:
        batch = made_up_responses(policy)
        self.examples = len(batch.input_ids)
        self.passes = list(batch.each()) if any(is_taken_alone(matrix, alone) for matrix in matrices) else [batch]
        self._factors: dict[MatrixShape, dict[int, tuple[Tensor, Tensor]]] = {}
        for first, part in enumerate(self.passes):
            self._first = first
            backward_pass(policy, part, matrices, self, alone)

    @property
    def shapes(self) -> Collection[MatrixShape]:
        """The matrices whose gradients have arrived."""
        return self._factors.keys()

    def keep(
        self, shape: MatrixShape, long: Float[Tensor, "examples tokens width"]
    ) -> Float[Tensor, "examples tokens width"]:
        """All of it: the examples are short."""
        return long

    def add(self, shape: MatrixShape, short: Tensor, kept: Tensor) -> None:
        """Keep both factors."""
        self._factors.setdefault(shape, {})[self._first] = (short.detach(), kept.detach())

    def of(self, shape: MatrixShape) -> Float[Tensor, "examples rank width"]:
        """One matrix's gradients, zero for an example that none came from."""
        found = {
            first: torch.einsum("ntr,ntw->nrw", *(factor.to(_accurate(factor)) for factor in factors))
            for first, factors in self._factors[shape].items()
        }
        absent = torch.zeros_like(next(iter(found.values()))[:1])
        if all(len(part) == self.examples for part in found.values()):
            return found[0]
        return torch.cat([found.get(place, absent) for place in range(self.examples)])


class _Slopes:
    """How log-probabilities should change as each matrix moves along its own gradient, summed over the examples."""

    def __init__(self, matrices: Sequence[LoraMatrix], gradients: Gradients) -> None:
        self._matrices, self._gradients = matrices, gradients
        self._units: list[Tensor] = []
        along = [torch.zeros(gradients.examples, dtype=torch.float64)]
        for matrix in matrices:
            found = gradients.of(matrix.shape)
            total = found.sum(dim=0)
            unit = total / total.norm().clamp_min(torch.finfo(total.dtype).tiny)
            along.append(torch.einsum("nrw,rw->n", found, unit).cpu().double())
            self._units.append(unit if matrix.is_a else unit.T)
        self._along = torch.stack(along[1:] or along)
        self._sizes = self._along.square().sum(dim=0).sqrt()

    def error(self, policy: PeftModel, change: float, seed: int) -> Float[Tensor, " examples"]:
        """Measured less expected derivative of each example, as a share of its size, along matrices with random signs.

        The size is the root of the sum of squares over the matrices. The largest example's log-probability moves by about
        `change` either way.
        """
        largest = float(self._sizes.max())
        if largest == 0:
            return torch.zeros_like(self._sizes)
        draw = torch.Generator().manual_seed(seed)
        signs = 2 * torch.randint(0, 2, (len(self._along),), generator=draw).double() - 1
        step, ends = change / largest, []
        for signed in ((step * signs).tolist(), (-step * signs).tolist()):
            with moved(self._matrices, (size * unit for size, unit in zip(signed, self._units, strict=False))):
                ends.append(_logps(policy, self._gradients))
        off = ((ends[0] - ends[1]) / (2 * step) - signs @ self._along).abs()
        return off / self._sizes.clamp_min(SMALL * largest)


def _logps(policy: PeftModel, gradients: Gradients) -> Float[Tensor, " examples"]:
    """Log-probabilities of the made-up responses, of the same passes as the gradients."""
    return torch.cat([response_logps(policy, part).cpu().double() for part in gradients.passes])


def _number_format(policy: PeftModel) -> torch.dtype:
    """float64 or float32 where all weights are at least that; else bfloat16, which stands for everything coarser."""
    formats = {parameter.dtype for parameter in policy.parameters()}
    if formats == {torch.float64}:
        return torch.float64
    return torch.float32 if formats <= {torch.float32, torch.float64} else torch.bfloat16


def _accurate(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
