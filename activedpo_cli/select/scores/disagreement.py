"""What an answer would tell about which member of an ensemble is right: BALD."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from activedpo_cli.base.shapes import Float

ROUNDING = 1e-13
"""Information below this share of the answer's entropy is a rounding error, hence zero."""


def answer_entropy(margins: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """H(σ(m)), the entropy in nats of an answer that is yes with probability σ(m), exact for margins of any size."""
    size = margins.abs()
    return softplus(-size) + size * (-size).sigmoid()


def mutual_information(margins: Float[Tensor, "heads pairs"]) -> Float[Tensor, " pairs"]:
    """BALD = H(mean of p_k) − mean of H(p_k) with p_k = σ(m_k), in nats: 0 where all heads agree, at most log 2.

    Houlsby et al., arXiv 1112.5745, for an ensemble of Bradley–Terry heads.
    """
    rarer = torch.minimum(margins.sigmoid().mean(dim=0), (-margins).sigmoid().mean(dim=0))
    total = torch.special.entr(rarer) - (1 - rarer) * (-rarer).log1p()
    information = total - answer_entropy(margins).mean(dim=0)
    return information.where(information > ROUNDING * total, 0.0)
