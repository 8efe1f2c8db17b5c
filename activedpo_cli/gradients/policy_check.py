"""What is asked of a policy before anything is made with it: whether features are the gradients of what training trains.

Each check is a function in `CHECKS`, by what it makes sure of. They take a few short passes over made-up tokens and leave
the policy as it was, bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, UsageError
from activedpo_cli.base.out_of_memory import is_out_of_memory
from activedpo_cli.gradients.directional import Gradients, derivative_error, moves_log_probabilities
from activedpo_cli.gradients.lora_matrices import LoraMatrix, active_lora_matrices, unseen_weights
from activedpo_cli.gradients.per_response import is_taken_alone
from activedpo_cli.gradients.separation import Separation, separation
from activedpo_cli.gradients.trial import disturbed

SHOWN = 8
USUAL = (nn.Linear.forward, Conv1D.forward)


@dataclass(frozen=True)
class Passed:
    """What was made sure of, by name; and the matrices whose gradients a batch does not show apart.

    `alone` names those among linear layers; `slow` those and adapted bare weights, for which each response has a pass
    of its own.
    """

    checks: list[str]
    alone: frozenset[str]
    slow: list[str]


class Trial:
    """A policy under the checks, and what several of them need, found out once; `setting` names the adapted layers."""

    def __init__(self, policy: PeftModel, setting: str = "adapter.target_modules") -> None:
        self.policy, self.setting = policy, setting

    @cached_property
    def separation(self) -> Separation:
        """Which gradients a batch shows apart; a failure of the model, which its adapter causes, is told as such."""
        try:
            return separation(self.policy)
        except Exception as error:
            if isinstance(error, ActiveDPOError) or is_out_of_memory(error):
                raise
            raise _cannot_run(self, error) from error


def _cannot_run(trial: Trial, error: Exception) -> ActiveDPOError:
    """What to say of a model that fails with its adapter, which some layers can't have."""
    said, unusual = f"{type(error).__name__}: {error}".splitlines()[0], _unusual_layers(trial.policy)
    if not unusual:
        return InvalidDataError(
            "the model can't be run on tokens of its vocabulary",
            details=[said],
            hint="another number format or attention may help: `--dtype float32`, `--set model.attn_implementation=eager`",
        )
    return UsageError(
        f"{trial.setting}: the model can't be run with an adapter on these layers",
        details=[*_shown(unusual), said],
        hint=_other_layers(trial, unusual),
    )


def check_policy(policy: PeftModel) -> Passed:
    """Make every check on a policy, whose weights are as they were afterwards.

    Raises UsageError or InvalidDataError, naming layers and the way out, where features would not be the gradients.
    """
    trial = Trial(policy)
    for check in CHECKS.values():
        check(trial)
    return passed(trial)


def require_running(policy: PeftModel, setting: str) -> None:
    """Raise UsageError, naming layers and the way out, where the model can't be run with its adapter."""
    CHECKS[RUNS](Trial(policy, setting))


def found(trial: Trial, check: str) -> str:
    """What a check that was passed has found, in a few words."""
    matrices = active_lora_matrices(trial.policy)
    if CHECKS[check] is _every_weight_is_seen:
        return f"{len(matrices)} matrices"
    if CHECKS[check] is _the_model_runs:
        slow = len(passed(trial).slow)
        return f"gradients of {slow} matrices take a pass for each response" if slow else "gradients come in batches"
    return "differences of log-probabilities agree with them"


def passed(trial: Trial) -> Passed:
    """What follows for taking gradients from a trial whose checks were made."""
    alone = trial.separation.alone
    slow = [m.shape.name for m in active_lora_matrices(trial.policy) if is_taken_alone(m, alone)]
    return Passed(list(CHECKS), alone, slow)


def _every_weight_is_seen(trial: Trial) -> None:
    unseen = unseen_weights(trial.policy)
    if unseen:
        raise UsageError(
            f"{trial.setting}: training would change weights whose gradients features do not see",
            details=_shown(unseen),
            hint=_other_layers(trial, []).replace("--set", "in a new run: --set"),
        )


def _the_model_runs(trial: Trial) -> None:
    """Refuse layers whose place an adapter can't take, such as routers that return several tensors."""
    assert trial.separation is not None


def _gradients_are_derivatives(trial: Trial) -> None:
    """Compare differences of log-probabilities with the gradients, along directions in all A and in all B."""
    policy = trial.policy
    if trial.separation.without_backward_of_packed:
        raise InvalidDataError(
            "the kernels of this model's quantised layers have no backward pass here",
            details=_shown(trial.separation.without_backward_of_packed),
            hint=_way_out(trial),
        )
    with disturbed(policy) as matrices:
        gradients = _gradients(trial, matrices)
        lost = [matrix for matrix in matrices if matrix.shape not in gradients.shapes]
        if lost and moves_log_probabilities(policy, [matrix for matrix in lost if not matrix.is_a]):
            raise InvalidDataError(
                f"no gradient reaches {len(lost)} of the adapter's matrices, though log-probabilities depend on them",
                details=_shown([matrix.shape.name for matrix in lost]),
                hint=_way_out(trial),
            )
        for is_a, name in ((False, "B"), (True, "A")):
            group = [matrix for matrix in matrices if matrix.is_a == is_a and matrix not in lost]
            error = derivative_error(policy, group, gradients)
            if error is not None:
                raise InvalidDataError(
                    "the gradients of this model are not the derivatives of its log-probabilities",
                    details=[
                        f"along {name} of the adapter they are off by {error:.0%} of their size",
                        *(f"{layer} passes no gradient on" for layer in _shown(trial.separation.without_backward)),
                    ],
                    hint=_way_out(trial),
                )


RUNS = "the model runs with the adapter"
"""The check that concerns training too, whatever method selects."""
CHECKS: dict[str, Callable[[Trial], None]] = {
    "every trained weight is seen by the features": _every_weight_is_seen,
    RUNS: _the_model_runs,
    "gradients are the derivatives of log-probabilities": _gradients_are_derivatives,
}
"""By what they make sure of, in the order in which they are made."""


def _gradients(trial: Trial, matrices: Sequence[LoraMatrix]) -> Gradients:
    try:
        return Gradients(trial.policy, matrices, trial.separation.alone)
    except InvalidDataError as error:  # none has arrived
        raise InvalidDataError(
            error.message, details=_shown(trial.separation.without_backward), hint=_way_out(trial)
        ) from error


def _way_out(trial: Trial) -> str:
    return (
        "these layers have no backward pass on this device, as kernels for quantised weights may not: take weights that "
        "are not quantised, or another --device"
        if trial.separation.without_backward
        else "a kernel of this model has no backward pass, or a wrong one: try `--set model.attn_implementation=eager`, "
        "another --device, or weights that are not quantised"
    )


def _other_layers(trial: Trial, without: list[str]) -> str:
    """The setting that adapts plain linear layers alone, those called like any of `without` left out."""
    unwanted = {name.rpartition(".")[2] for name in without}
    names = {
        matrix.shape.name.partition("/")[0].rpartition(".")[2]
        for matrix in active_lora_matrices(trial.policy)
        if matrix.is_applied
    }
    return f"--set {trial.setting}={','.join(sorted(names - unwanted)) or 'q_proj,k_proj,v_proj,o_proj'}"


def _unusual_layers(policy: PeftModel) -> list[str]:
    """Adapted layers that do something else than a linear layer does."""
    return [
        name.removeprefix("base_model.model.")
        for name, layer in policy.named_modules()
        if isinstance(layer, LoraLayer)
        and isinstance(base := layer.get_base_layer(), (nn.Linear, Conv1D))
        and type(base).forward not in USUAL
    ]


def _shown(names: list[str]) -> list[str]:
    return [*names[:SHOWN], *([f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else [])]
