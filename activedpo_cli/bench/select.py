"""Measures the greedy choice in memory, against one product, V⁻¹ updated in place and the paper's step as written."""

from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor

from activedpo_cli.base.progress import Progress
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.bench.measuring import median_ratio, peak_memory, seconds
from activedpo_cli.pairs.pair_features import unit_rows
from activedpo_cli.select.design.design import design_matrix, pair_uncertainty
from activedpo_cli.select.design.greedy import greedy_uncertainty

CPU = torch.device("cpu")
LARGEST_INVERTED = 1024
"""Features up to which the picks are compared with an inverse from scratch for each; else with V⁻¹ kept in float64."""


@dataclass(frozen=True, kw_only=True)
class SelectPlan:
    """Candidates and labelled pairs of random features, φ = a − b of responses at unit norm, in float32."""

    pairs: int
    proj_dim: int
    budget: int
    labelled: int
    ridge: float
    repeats: int
    textbook_steps: int
    seed: int

    def features(self, count: int, what: str) -> Tensor:
        """φ of so many pairs."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "bench", what))
        ends = [unit_rows(torch.randn(count, self.proj_dim, generator=generator)) for _ in "ab"]
        return ends[0].sub_(ends[1])


@dataclass(frozen=True, kw_only=True)
class SelectCost:
    """The measurement; seconds are of all picks, history included; the paper's are scaled from a few steps."""

    all_seconds: list[float]
    product_seconds: list[float]
    """Of one product of all pairs with the labelled ones, both in float64 already, each right after a choice."""
    sherman_morrison_seconds: list[float]
    step_seconds: list[float]
    textbook_seconds: float
    same_picks: bool
    compared_with: str
    peak_memory_bytes: int

    @property
    def seconds(self) -> float:
        """Of the greedy choice: the median."""
        return median(self.all_seconds)

    @property
    def ratio_to_product(self) -> float:
        """The choice as a multiple of that product, without which no score is known: the median of the ratios."""
        return median_ratio(self.all_seconds, self.product_seconds)

    @property
    def ratio_to_sherman_morrison(self) -> float:
        """How many times as long V⁻¹ in place takes, at its fastest."""
        return min(self.sherman_morrison_seconds) / self.seconds

    @property
    def ratio_to_textbook(self) -> float:
        """How many times as long scores from V⁻¹ at each pick take, V⁻¹ itself not counted."""
        return self.textbook_seconds / self.seconds


def measure_select(plan: SelectPlan, progress: Progress) -> SelectCost:
    """Measure on the CPU."""
    progress.start("measure", 3 * plan.repeats + plan.textbook_steps + 3, "choices")
    try:
        return _measure(plan, progress)
    finally:
        progress.stop()


def _measure(plan: SelectPlan, progress: Progress) -> SelectCost:
    features, labelled = plan.features(plan.pairs, "candidates"), plan.features(plan.labelled, "labelled")
    priority = torch.arange(plan.pairs)
    rows: list[int] = []

    def choose() -> None:
        rows[:] = greedy_uncertainty(features, labelled, plan.ridge, plan.budget, priority)[0].tolist()

    choose()
    progress.advance()
    ours, products, others = [], [], []
    in_float64 = features.double(), labelled.double().T
    for _ in range(plan.repeats):
        ours.append(seconds(choose, CPU))
        progress.advance()
        products.append(seconds(partial(torch.matmul, *in_float64), CPU))
        progress.advance()
        others.append(seconds(lambda: sherman_morrison(features, labelled, plan.ridge, plan.budget), CPU))
        progress.advance()
    del in_float64
    inverse = inverse_design(labelled, plan.ridge)
    steps = []
    for _ in range(plan.textbook_steps):
        steps.append(seconds(partial(scores_as_written, features, inverse), CPU))
        progress.advance()
    del inverse
    if plan.proj_dim <= LARGEST_INVERTED:
        compared_with, expected = "an inverse from scratch for each pick, float64", textbook
    else:
        compared_with, expected = "V⁻¹ brought up to date, float64", _in_float64
    same_picks = rows == expected(features, labelled, plan.ridge, plan.budget)
    progress.advance()
    peak = peak_memory(choose, CPU)
    progress.advance()
    return SelectCost(
        all_seconds=ours,
        product_seconds=products,
        sherman_morrison_seconds=others,
        step_seconds=steps,
        textbook_seconds=min(steps) * plan.budget,
        same_picks=same_picks,
        compared_with=compared_with,
        peak_memory_bytes=peak,
    )


def _in_float64(features: Tensor, labelled: Tensor, ridge: float, budget: int) -> list[int]:
    return sherman_morrison(features.double(), labelled.double(), ridge, budget)[0]


def inverse_design(labelled: Tensor, ridge: float) -> Tensor:
    """V⁻¹, d × d, of the pairs labelled earlier by Woodbury's identity: one product of matrices and nothing of size d³."""
    count, proj_dim = labelled.shape
    inverse = torch.eye(proj_dim, dtype=labelled.dtype).div_(ridge)
    if count:
        gram = labelled @ labelled.T
        gram.diagonal().add_(ridge)
        whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), labelled, upper=False)
        inverse.addmm_(whitened.T, whitened, alpha=-1 / ridge)
    return inverse


def sherman_morrison(features: Tensor, labelled: Tensor, ridge: float, budget: int) -> tuple[list[int], Tensor]:
    """The picks, with V⁻¹ and all scores brought up to date in place after each, and V⁻¹ at the end; O(d² + n d) a pick."""
    inverse = inverse_design(labelled, ridge)
    scores = (features @ inverse).mul_(features).sum(dim=1) if len(labelled) else features.square().sum(dim=1) / ridge
    rows: list[int] = []
    for _ in range(budget):
        row = int(scores.argmax())
        solved = inverse @ features[row]
        gain = 1 + float(features[row] @ solved)
        scores -= (features @ solved).square_().div_(gain)
        inverse.addr_(solved, solved, alpha=-1 / gain)
        rows.append(row)
        scores[rows] = -torch.inf
    return rows, inverse


def scores_as_written(features: Tensor, inverse: Tensor) -> Tensor:
    """φᵀV⁻¹φ of all pairs from V⁻¹, as the paper writes a pick; O(n d²)."""
    return (features @ inverse).mul_(features).sum(dim=1)


def textbook(features: Tensor, labelled: Tensor, ridge: float, budget: int) -> list[int]:
    """The picks in float64, with V and its inverse from scratch for each."""
    features, labelled = features.double(), labelled.double()
    rows: list[int] = []
    for _ in range(budget):
        design = design_matrix(torch.cat([labelled, features[rows]]), ridge)
        scores = pair_uncertainty(features, torch.linalg.inv(design))
        scores[rows] = -1
        rows.append(int(scores.argmax()))
    return rows
