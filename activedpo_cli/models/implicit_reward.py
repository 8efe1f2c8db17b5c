"""The implicit reward of DPO, the preference model on top of it, and the loss; all natural logarithms."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from activedpo_cli.base.shapes import Float


def implicit_reward(
    logps: Float[Tensor, " responses"], ref_logps: Float[Tensor, " responses"], beta: float
) -> Float[Tensor, " responses"]:
    """R = β (log π − log π_ref) of each response, from its summed log-probabilities.

    arXiv 2505.19241, section 2, whose formula lacks the logarithm by a misprint: Eqs. (1) and (2) need it.
    """
    return beta * (logps - ref_logps)


def preference_probability(
    reward_a: Float[Tensor, "*pairs"], reward_b: Float[Tensor, "*pairs"], temperature: float = 1.0
) -> Float[Tensor, "*pairs"]:
    """Bradley–Terry probability that response a is preferred to response b: σ((r_a − r_b) / temperature).

    Eq. (1) of arXiv 2505.19241 is the case of temperature 1. Raises ValueError unless the temperature is positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    return ((reward_a - reward_b) / temperature).sigmoid()


def dpo_loss(
    chosen_logps: Float[Tensor, " pairs"],
    rejected_logps: Float[Tensor, " pairs"],
    ref_chosen_logps: Float[Tensor, " pairs"],
    ref_rejected_logps: Float[Tensor, " pairs"],
    *,
    beta: float,
) -> Float[Tensor, ""]:
    """Mean of −log σ(r_chosen − r_rejected) over the preferences, in nats; log 2 where policy and reference agree.

    Eq. (2) of arXiv 2505.19241. Training uses TRL's; this one is what tests compare that with.
    """
    chosen_rewards = implicit_reward(chosen_logps, ref_chosen_logps, beta)
    rejected_rewards = implicit_reward(rejected_logps, ref_rejected_logps, beta)
    return -logsigmoid(chosen_rewards - rejected_rewards).mean()
