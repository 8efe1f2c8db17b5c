"""Draws the prompts of one iteration at random, without replacement, by the run's seed and t."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.records import Prompt
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.engine.step import Context

TOO_LONG, HELD_OUT, REPEATED = "too_long", "held_out", "repeated"
WORDS = {
    TOO_LONG: "because prompt and response exceed the model's context",
    HELD_OUT: "because the model reads them as it reads held-out ones",
    REPEATED: "because the model reads them as it reads others that were drawn",
}
"""Why a prompt is passed over."""


@dataclass(frozen=True)
class DrawnPrompts:
    """The drawn prompts in their stored order, and by reason (see `WORDS`) the ids of those that were passed over."""

    prompts: list[Prompt]
    passed_over: dict[str, list[str]]

    @property
    def too_long(self) -> list[str]:
        """The ids of those that leave no room for a response."""
        return self.passed_over.get(TOO_LONG, [])

    def as_json(self) -> dict[str, Any]:
        """What `prompts.json` holds beside the source."""
        ids = [prompt.prompt_id for prompt in self.prompts]
        return {"prompt_ids": ids, TOO_LONG: self.too_long} | self.passed_over


def draw_prompts(
    context: Context, prompts: Sequence[Prompt], why_not: Callable[[Prompt], str | None] = lambda prompt: None
) -> DrawnPrompts:
    """The first `generate.num_prompts` that can be used, or all of them, in an order shuffled by seed and iteration.

    `why_not` gives the reason, one of `WORDS`, by which a prompt is passed over, and None for one that is taken.

    Raises InvalidDataError, naming one that does not fit, when too few do: a label bought for a prompt that training
    would have to cut or drop is lost.
    """
    wanted = context.settings.generate.num_prompts
    order = list(prompts)
    random.Random(derive_seed(context.settings.seed, "draw", context.iteration)).shuffle(order)
    drawn: list[Prompt] = []
    passed_over: dict[str, list[str]] = {}
    for prompt in order:
        if len(drawn) == wanted:
            break
        reason = why_not(prompt)
        if reason is None:
            drawn.append(prompt)
        else:
            passed_over.setdefault(reason, []).append(prompt.prompt_id)
    if len(drawn) < (wanted or 1):
        _refuse(wanted, len(prompts), len(drawn), passed_over)
    for reason, ids in passed_over.items():
        passed = counted(len(ids), "prompt", ("was", "were"))
        context.progress.warn(f"{passed} passed over {WORDS[reason]}, first `{ids[0]}`")
    return DrawnPrompts(drawn, passed_over)


def _refuse(wanted: int | None, present: int, usable: int, passed_over: dict[str, list[str]]) -> NoReturn:
    what = {TOO_LONG: "prompt and response together exceed the model's context, first at `{}`"}
    raise InvalidDataError(
        f"only {usable} of {present} prompts can be used"
        + (f", and generate.num_prompts is {wanted}" if wanted else ""),
        details=[
            what.get(reason, f"{len(ids)} were passed over {WORDS[reason]}, first `{{}}`").format(ids[0])
            for reason, ids in passed_over.items()
        ],
        hint=(
            f"--num-prompts {usable}"
            if usable
            else "use a model with a longer context"
            if TOO_LONG in passed_over
            else "give prompts that the model reads as different ones"
        )
        + (" or a smaller --max-new-tokens" if TOO_LONG in passed_over else ""),
    )
