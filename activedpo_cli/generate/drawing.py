"""Draws the prompts of one iteration at random, without replacement, by the run's seed and t."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import Prompt
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.engine.step import Context


@dataclass(frozen=True)
class DrawnPrompts:
    """The drawn prompts in their stored order, and the ids of those passed over because they leave no room."""

    prompts: list[Prompt]
    too_long: list[str]

    def as_json(self) -> dict[str, Any]:
        """What `prompts.json` holds beside the source."""
        return {"prompt_ids": [prompt.prompt_id for prompt in self.prompts], "too_long": self.too_long}


def draw_prompts(context: Context, prompts: Sequence[Prompt], fits: Callable[[Prompt], bool]) -> DrawnPrompts:
    """The first `generate.num_prompts` that fit, or all of them, in an order shuffled by the run's seed and the iteration.

    Raises InvalidDataError, naming one that does not fit, when too few do: a label bought for a prompt that training
    would have to cut or drop is lost.
    """
    wanted = context.settings.generate.num_prompts
    order = list(prompts)
    random.Random(derive_seed(context.settings.seed, "draw", context.iteration)).shuffle(order)
    drawn: list[Prompt] = []
    too_long: list[str] = []
    for prompt in order:
        if len(drawn) == wanted:
            break
        if fits(prompt):
            drawn.append(prompt)
        else:
            too_long.append(prompt.prompt_id)
    if len(drawn) < (wanted or 1):
        raise InvalidDataError(
            f"only {len(drawn)} of {len(prompts)} prompts can be used"
            + (f", and generate.num_prompts is {wanted}" if wanted else ""),
            details=[f"prompt and response together exceed the model's context, first at `{too_long[0]}`"]
            if too_long
            else [],
            hint=(f"--num-prompts {len(drawn)}" if drawn else "use a model with a longer context")
            + (" or a smaller --max-new-tokens" if too_long else ""),
        )
    if too_long:
        context.progress.warn(
            f"{len(too_long)} prompts were passed over because prompt and response exceed the model's context, "
            f"first `{too_long[0]}`"
        )
    return DrawnPrompts(drawn, too_long)
