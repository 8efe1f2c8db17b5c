"""What a judge would be asked, and what that costs, before anything is called, for `--dry-run`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.settings import Config, JudgeSettings
from activedpo_cli.engine.step import require
from activedpo_cli.label.judging import KeptReplies, price_of
from activedpo_cli.label.questions import questions
from activedpo_cli.oracles.base import Comparison, ReplyMemory, keeps_replies, open_judge
from activedpo_cli.store.run import Run


@dataclass(frozen=True, kw_only=True)
class JudgePlan:
    """Calls that are needed if every reply can be read.

    Attributes:
        pairs: Pairs that have no answer yet.
        calls: Calls about them, without those whose reply is there.
        spent: Calls that were made before, which count for the limit.
        prompt_tokens: About as many tokens these calls ask with.
        completion_tokens: As many at most are replied.
        tries: As many calls at most are made in place of each of these.
        price: What these tokens cost at most by the given prices; None where none was given.
        limits: The limits that such calls would reach, in words.

    """

    pairs: int
    calls: int
    spent: int
    prompt_tokens: int
    completion_tokens: int
    tries: int
    price: float | None
    limits: list[str]

    def as_facts(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def plan_of_stage(
    run: Run, iteration: int, config: Config, progress: Progress, *, anew: bool = False, ask_again: bool = False
) -> JudgePlan:
    """What *label* of an iteration would ask.

    Args:
        run: The run.
        iteration: Its iteration, whose pairs are selected.
        config: The settings that *label* would see.
        progress: Hears of what can't be read.
        anew: Whether the stage would be made again, without the answers that it has.
        ask_again: Whether replies that are there would not count.

    Raises UsageError where nothing that costs a call would be asked.

    """
    spec = config.label.oracle
    if not keeps_replies(spec):
        raise UsageError(
            f"--dry-run counts the calls of a judge, and label.oracle is `{spec}`, which makes none",
            hint="--oracle judge:MODEL",
        )
    require(run, "select", iteration)
    folder = run.redone_stage("label", iteration) if anew else run.stage("label", iteration)
    answered = folder.label_log().labels()
    asked = [pair for pair in questions(run, iteration) if pair.pair_id not in answered]
    memory = KeptReplies(run, folder.reply_log(), progress, with_others=not ask_again)
    return plan(spec, config, asked, memory)


def plan(spec: str, config: Config, asked: Sequence[Comparison], memory: ReplyMemory) -> JudgePlan:
    """What a judge would be asked about these pairs, beside the replies that are kept."""
    settings = config.label.judge
    calls, tokens = open_judge(spec, config.label, memory).calls_to_come(asked)
    spent, replied = memory.spent(), calls * settings.max_tokens
    return JudgePlan(
        pairs=len(asked),
        calls=calls,
        spent=spent.calls,
        prompt_tokens=tokens,
        completion_tokens=replied,
        tries=settings.tries,
        price=price_of(tokens, replied, settings),
        limits=_limits_reached(settings, spent.calls + calls, spent.tokens + tokens + replied),
    )


def _limits_reached(settings: JudgeSettings, calls: int, tokens: int) -> list[str]:
    named = {"max_calls": (settings.max_calls, calls), "max_tokens_total": (settings.max_tokens_total, tokens)}
    return [
        f"label.judge.{name} is {limit}"
        for name, (limit, needed) in named.items()
        if limit is not None and needed > limit
    ]
