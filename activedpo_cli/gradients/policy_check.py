"""What is asked of a policy before anything is made with it: whether features see what training trains.

Each check is a function in `CHECKS`, by what it makes sure of.
"""

from collections.abc import Callable

from torch import nn

from activedpo_cli.base.errors import UsageError
from activedpo_cli.gradients.lora_matrices import active_lora_matrices, unseen_weights

SHOWN = 8


def check_policy(policy: nn.Module) -> list[str]:
    """Make every check on a policy, which is left as it was; returns what was made sure of.

    Raises UsageError, naming the weights and the way out, where features would not be the gradients.
    """
    for check in CHECKS.values():
        check(policy)
    return list(CHECKS)


def _every_weight_is_seen(policy: nn.Module) -> None:
    unseen = unseen_weights(policy)
    if unseen:
        layers = {matrix.shape.name.partition("/")[0].rpartition(".")[2] for matrix in active_lora_matrices(policy)}
        raise UsageError(
            "adapter.target_modules: training would change weights whose gradients features do not see",
            details=[*unseen[:SHOWN], *([f"and {len(unseen) - SHOWN} more"] if len(unseen) > SHOWN else [])],
            hint=f"adapt linear layers alone, in a new run: --lora-modules {','.join(sorted(layers))}",
        )


CHECKS: dict[str, Callable[[nn.Module], None]] = {"every trained weight is seen by the features": _every_weight_is_seen}
