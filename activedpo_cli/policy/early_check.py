"""Asks of a model, before anything is generated with it, whether the run's adapter on it can be featurized."""

from activedpo_cli.base import discovery
from activedpo_cli.engine.step import Context
from activedpo_cli.policy.policy import BaseWeights

READS = (
    *("adapter.r", "adapter.lora_alpha", "adapter.lora_dropout", "adapter.target_modules"),
    *("featurize.compute", "select.method"),
)
"""The settings that decide what is asked, and nothing of what is generated."""


def check_model(context: Context, base: BaseWeights) -> None:
    """Put a fresh adapter on the base, check it, and take it off again; nothing where the run needs no gradients.

    Raises UsageError, naming the weights, where training would change some that features do not see.
    """
    from activedpo_cli.gradients.policy_check import check_policy
    from activedpo_cli.models.adapters import with_fresh_adapter

    config = context.settings
    wanted = config.featurize.compute
    if "features" not in (discovery.declared_needs("acquisition", config.select.method) if wanted is None else wanted):
        return
    try:
        policy = with_fresh_adapter(base.model, config.adapter, seed=0)
        check_policy(policy)
    except BaseException:
        if context.execution.kept is not None:
            context.execution.kept.forget()
        raise
    policy.unload()
    if hasattr(base.model, "peft_config"):
        del base.model.peft_config
