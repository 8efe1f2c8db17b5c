"""BALD: the pairs about whose answer an ensemble of linear reward heads on gradient features disagrees most.

φ is divided by its root mean square norm over the candidates. Head k gives a pair the margin m_k = φ·w_k. Its w_k starts
from a draw w₀ of N(0, I/l2) and minimises the Bradley–Terry loss on a bootstrap sample of the labelled pairs, plus
l2/2 ‖w − w₀‖²: where no label has been, heads go on to disagree, and without labels they are the draws themselves. A tie
counts as half an answer to each side.

BALD = H(mean σ(m_k)) − mean H(σ(m_k)) is what the answer would tell about which head is right, in nats. The largest are
taken at once. `entropy_weight` adds that multiple of Ĥ(x) = −(1/m) Σ log π(y|x) over the prompt's m samples in candidates.
What BAL-PM adds, the entropy of the *prompts'* features, has the method `bal-pm`.

Source: BALD, Houlsby et al., arXiv 1112.5745; for preferences BAL-PM, Melo et al., arXiv 2406.10023; anchored heads, Osband
et al., arXiv 1806.03335. Score: BALD + entropy_weight · Ĥ(x).
Cost: O(n d K + d s² + K s³) for n candidates, d features, K heads and s < d pairs labelled earlier.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor

from activedpo_cli.base.settings import NonNegative, Positive, Section, setting
from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.select.methods.base import Candidates, Selection, check_budget, take_best
from activedpo_cli.select.scores.entropy import mutual_information
from activedpo_cli.statistics.bradley_terry import fit_heads

NEEDS: tuple[str, ...] = ("features", "logps")  # logps come with the features, and are read if entropy_weight > 0


class Settings(Section):
    """The ensemble, and what else counts."""

    heads: PositiveInt = setting(10, "K, heads of the ensemble; one alone never disagrees")
    l2: Positive = setting(
        1.0, "precision of the heads' prior: before the first label a typical pair's margin has variance 1/l2"
    )
    entropy_weight: NonNegative = setting(0.0, "what one nat of the prompt's entropy adds to the score")


def choose(
    candidates: Candidates,
    budget: int,
    settings: Settings,
    generator: torch.Generator,
    max_per_prompt: int | None = None,
) -> Selection:
    """Choose `budget` pairs; raises ValueError where so many can not be taken."""
    check_budget(candidates, budget, max_per_prompt)
    scores = disagreement(candidates, settings, generator)
    if settings.entropy_weight > 0:
        scores += settings.entropy_weight * candidates.prompt_entropies()
    return take_best(candidates, scores, budget, generator, max_per_prompt)


def disagreement(candidates: Candidates, settings: Settings, generator: torch.Generator) -> Float[Tensor, " pairs"]:
    """BALD of each pair, in nats."""
    features, labelled = candidates.pair_features(), candidates.history()
    scale = float(torch.linalg.vector_norm(features, dim=1).square().mean().sqrt()) or 1.0
    preferred = None if candidates.labelled is None else candidates.labelled.preferred
    heads = _heads(labelled / scale, preferred, settings, generator)
    return mutual_information(heads / scale @ features.T).cpu()


def _heads(
    labelled: Float[Tensor, "labelled proj_dim"],
    preferred: Int[Tensor, " labelled"] | None,
    settings: Settings,
    generator: torch.Generator,
) -> Float[Tensor, "heads proj_dim"]:
    """The ensemble's weights; draws of the prior where nothing is labelled."""
    shape = (settings.heads, labelled.shape[1])
    draws = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
    prior = draws.to(labelled.device) / settings.l2**0.5
    if preferred is None or len(preferred) == 0:
        return prior
    counts = _bootstrap_counts(settings.heads, len(labelled), generator)
    return fit_heads(labelled, preferred, settings.l2, counts, prior)


def _bootstrap_counts(heads: int, labelled: int, generator: torch.Generator) -> Float[Tensor, "heads labelled"]:
    """How often each labelled pair is in each head's sample, which is as large as the whole and drawn with replacement."""
    drawn = torch.randint(labelled, (heads, labelled), generator=generator, device=generator.device).cpu()
    return torch.stack([sample.bincount(minlength=labelled) for sample in drawn]).to(torch.float64)
