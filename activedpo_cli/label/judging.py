"""What *label* adds to a judge: where its replies are kept, when it is trusted no further, and what is said of it.

A judge that is swayed by position has no opinion. After the first pairs, and again after every batch, how often its two
orders agree and how often one position won is looked at; beyond the bounds the stage stops, and can't be closed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, LabelsPendingError, UsageError
from activedpo_cli.base.numbers import share_of
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import Label, Spent
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import JUDGE_KEYS_OF_WORK, JudgeSettings
from activedpo_cli.engine.step import Context
from activedpo_cli.oracles.base import (
    Comparison,
    Judge,
    Judgement,
    Oracle,
    Verdict,
    asks_some_people,
    keeps_replies,
    label_from_verdict,
    open_judge,
    with_noise,
)
from activedpo_cli.oracles.judge import CUT_OFF, TOO_LONG
from activedpo_cli.statistics.agreement import binomial_p
from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.reply_log import REPLIES_NAME, ReplyLog
from activedpo_cli.store.run import Run

THRESHOLD = "label.judge.threshold"
CHECKED_AFTER = 20
"""Pairs after which a judge's taste for a position is looked at."""
LEAST_CONSISTENCY = 0.5
MOST_OF_ONE_POSITION = 0.9
SURE = 0.05
NAMED = 5
"""Pairs without a verdict that a message names."""
CHECK_REPLIES_NAME = f"judge-check-{REPLIES_NAME.removeprefix('judge-')}"
"""The log of what was asked to compare a judge with people, in the folder of the run."""


class KeptReplies:
    """The replies of a judge in one log, before them those of other logs of the run about the same questions.

    The same question was asked, word for word and with the same settings, so that its reply counts, unless somebody wanted
    the judge asked anew. A log of others that is damaged is passed over, and said.
    """

    def __init__(self, run: Run, own: ReplyLog, progress: Progress, *, with_others: bool = True) -> None:
        self._run = run
        self._own = own
        self._progress = progress
        self._with_others = with_others

    @cached_property
    def _of_others(self) -> dict[str, list[Mapping[str, Any]]]:
        if self._own.begins_anew or not self._with_others:
            return {}
        found: dict[str, list[Mapping[str, Any]]] = {}
        patterns = (f"iter-*/label/{REPLIES_NAME}", f"iter-*/.label.redo/{REPLIES_NAME}", CHECK_REPLIES_NAME)
        present = [path for pattern in patterns for path in sorted(self._run.path.glob(pattern))]
        for path in [*present, *sorted(self._run.stale.glob(f"*/{REPLIES_NAME}"), reverse=True)]:
            if path == self._own.path:
                continue
            try:
                for key, replies in ReplyLog(path).by_key().items():
                    found.setdefault(key, replies)
            except InvalidDataError as error:
                self._progress.warn(f"replies of a judge are not taken over: {error.message}")
        return found

    def replies(self, key: str) -> list[Mapping[str, Any]]:
        """The replies to a question, in the order in which they came."""
        return [*self._of_others.get(key, ()), *self._own.replies(key)]

    def keep(self, key: str, reply: Mapping[str, Any]) -> None:
        """Store a reply; it is safe when this returns."""
        self._own.keep(key, reply)

    def sent(self, call: str, at_most: Spent) -> None:
        """Note that a call is about to be made; it is safe when this returns."""
        self._own.sent(call, at_most)

    def untaken(self, call: str) -> None:
        """Note that a call cost nothing."""
        self._own.untaken(call)

    def spent(self) -> Spent:
        """By the own log."""
        return self._own.spent

    def advance(self) -> None:
        """Note that one more pair is done."""
        self._progress.advance()

    def tell(self, message: str) -> None:
        """Let whoever waits know."""
        self._progress.note(message)


def settings_of(oracle: str) -> list[str]:
    """The settings of a judge on which the answers of an oracle depend; none where it is no judge."""
    if not keeps_replies(oracle):
        return []
    return [key for key in JUDGE_KEYS_OF_WORK if key != THRESHOLD or asks_some_people(oracle)]


def check(context: Context) -> None:
    """Refuse to begin where the judge can't be asked, or where settings say what it does not do."""
    if context.settings.label.answer != "argmax":
        raise UsageError(
            f"label.answer {context.settings.label.answer} draws from scores, and a judge gives none",
            hint="--answer argmax",
        )
    _open(context).prepare()


def ask(context: Context, comparisons: Sequence[Comparison], log: LabelLog) -> str | None:
    """Let the judge answer what is open, and stop where it answers by position.

    Once a limit is reached it still answers what it has replied to before. Returns that limit, None where none was.

    Raises:
        InvalidDataError: It does.
        ActiveDPOError: It can't be reached; what it replied before is kept.

    """
    config, standing = context.settings, log.labels()
    judge = _open(context, anew=bool(context.execution.options.get("ask-again")))
    asked = [comparison for comparison in comparisons if comparison.pair_id not in standing]
    context.progress.start("judge", len(comparisons), "pairs", len(comparisons) - len(asked))
    known = {one.pair_id: one for one in judge.judgements(comparisons)}
    while True:
        refuse_biased(context, comparisons, list(known.values()))
        readable = sum(judgement.probability is not None for judgement in known.values())
        if not asked:
            break
        size = CHECKED_AFTER - readable if readable < CHECKED_AFTER else config.label.unit_size
        unit, asked = asked[:size], asked[size:]
        said = zip(unit, _asked(context, judge, unit), strict=True)
        known |= {one.pair_id: one for one in judge.judgements(unit)}
        answered = [(pair, verdict) for pair, verdict in said if verdict.preferred]
        log.append(*(label_from_verdict(pair, verdict, config.label.oracle) for pair, verdict in answered))
    context.progress.stop()
    if judge.stopped is not None:
        context.progress.warn(f"the judge is asked no further: {judge.stopped}")
    return judge.stopped


def _asked(context: Context, judge: Judge, unit: Sequence[Comparison]) -> list[Verdict]:
    """The verdicts; where the judge can't be reached, and never was, no trace of that keeps another from being tried."""
    try:
        return verdicts(context, judge, unit)
    except ActiveDPOError:
        context.folder.reply_log().remove_if_idle()
        raise


def verdicts(context: Context, oracle: Oracle, unit: Sequence[Comparison], *again: str) -> list[Verdict]:
    """What an oracle says of some pairs, drawn and turned around by the seeds of this run and iteration.

    `again` names a further draw, whose seeds are its own.
    """
    config, iteration = context.settings, context.iteration
    found = oracle.compare(unit, lambda pair: derive_seed(config.seed, "label", iteration, pair, *again))
    return with_noise(
        found, config.label.noise, lambda pair: derive_seed(config.seed, "label-noise", iteration, pair, *again)
    )


def left_to_people(comparisons: Sequence[Comparison], log: LabelLog) -> list[Comparison]:
    """The pairs that the judge has not answered."""
    standing = log.labels()
    return [pair for pair in comparisons if pair.pair_id not in standing or not is_of_judge(standing[pair.pair_id])]


def is_of_judge(label: Label) -> bool:
    """Whether a label of a judge, or of people beside one, is the judge's, which alone has scores."""
    return label.score_a is not None


def refuse_biased(context: Context, comparisons: Sequence[Comparison], known: Sequence[Judgement]) -> None:
    """Raise InvalidDataError where the judge's verdicts so far follow the position rather than the responses."""
    found = statistics_of(comparisons, known)
    if not found.is_biased:
        return
    command = context.anew("label", "--oracle")
    raise InvalidDataError(
        "the judge answers by position, so its verdicts are worth nothing",
        details=[found.in_words, "its replies are kept, and nothing was closed"],
        hint=f"ask another one, with another model or label.judge.rubric: `{command} judge:OTHER_MODEL`; or people: "
        f"`{command} human`",
    )


def pending(
    context: Context, comparisons: Sequence[Comparison], log: LabelLog, stopped: str | None
) -> LabelsPendingError:
    """What to say of pairs about which there is no verdict: silence is no tie; `stopped` is the limit that was reached."""
    standing = log.labels()
    open_pairs = [pair for pair in comparisons if pair.pair_id not in standing]
    known = _open(context).judgements(open_pairs)
    reasons = sum((Counter(judgement.unreadable) for judgement in known), Counter[str]())
    names = ", ".join(f"`{pair.pair_id}`" for pair in open_pairs[:NAMED])
    more = f" and {len(open_pairs) - NAMED} more" if len(open_pairs) > NAMED else ""
    why = ", ".join(f"{number} × {reason}" for reason, number in reasons.most_common())
    command = context.command("label")
    return LabelsPendingError(
        f"{len(open_pairs)} of {len(comparisons)} pairs have no verdict of the judge: {names}{more}"
        + (f"; replies that were none: {why}" if why else ""),
        hint=f"{_way_on(command, context.settings.label.judge, reasons, stopped)}; or close the stage without them: "
        f"`{command} --accept-partial`; what was replied stands in {context.folder.path / REPLIES_NAME}",
        facts={
            "stage": "label",
            "iteration": context.iteration,
            "state": "labels pending",
            "folder": str(context.folder.path),
            "pairs": len(comparisons),
            "answered": len(comparisons) - len(open_pairs),
            "without_verdict": [pair.pair_id for pair in open_pairs],
            "unreadable": dict(reasons),
            "stopped": stopped,
            "next": command,
        },
    )


def _way_on(command: str, settings: JudgeSettings, reasons: Mapping[str, int], stopped: str | None) -> str:
    """What gets verdicts about the pairs that have none: room under the limit, a shorter question, or further tries."""
    if stopped is not None:
        return f"raise that limit: `{command} --set {stopped.partition(' ')[0]}=…`"
    if reasons.keys() == {TOO_LONG}:
        shorter = max(settings.max_tokens // 4, 1)
        return (
            f"leave more room for the question, if that is enough: `{command} --set label.judge.max_tokens={shorter}`"
        )
    longer = f" --set label.judge.max_tokens={4 * settings.max_tokens}" if reasons.get(CUT_OFF) else ""
    return f"let it try again: `{command} --set label.judge.tries={2 * settings.tries}{longer}`"


def summary(context: Context, comparisons: Sequence[Comparison], log: LabelLog) -> dict[str, Any]:
    """What the record of the stage says of the judge, and of the people beside it; raises as `refuse_biased`."""
    spec = context.settings.label.oracle
    memory = KeptReplies(context.run, context.folder.reply_log(), context.progress)
    known = open_judge(spec, context.settings.label, memory).judgements(comparisons)
    refuse_biased(context, comparisons, known)
    found = statistics_of(comparisons, known)
    facts: dict[str, Any] = {
        "judge": found.as_facts() | spending(memory.spent(), context.settings.label.judge),
    }
    if asks_some_people(spec):
        standing = log.labels()
        mine = [standing[pair.pair_id] for pair in comparisons if pair.pair_id in standing]
        people = sum(not is_of_judge(label) for label in mine)
        facts["people"] = {"pairs": people, "of": len(mine), "share": _ratio(people, len(mine))}
    return facts


def headline(summary: Mapping[str, Any]) -> list[str]:
    """What a record says of a judge, in a few words; nothing where there was none."""
    facts = summary.get("judge")
    if not facts:
        return []
    parts = [f"both orders agree on {share_of(facts['consistent'], facts['pairs'])}"]
    if people := summary.get("people"):
        parts.append(f"people saw {share_of(people['pairs'], _answered(people))}")
    return parts


def _answered(people: Mapping[str, Any]) -> int:
    """How many pairs anybody answered; older records have only the share of them that people saw."""
    if "of" in people or not people["share"]:
        return int(people.get("of", people["pairs"]))
    return round(people["pairs"] / people["share"])


def described(summary: Mapping[str, Any]) -> str | None:
    """What a record says of a judge and of the people beside it, in one sentence; None where there was no judge."""
    facts = summary.get("judge")
    if not facts:
        return None
    tokens = facts["prompt_tokens"] + facts["completion_tokens"]
    asked = f"{facts['calls']} calls, {tokens:,} tokens" if facts["calls"] else "no call, since its replies were there"
    parts = [_in_words(facts), *headline(summary)[1:], asked]
    return f"The judge: {', '.join(parts)}."


def _in_words(facts: Mapping[str, Any]) -> str:
    parts = [f"both orders agree on {share_of(facts['consistent'], facts['pairs'])} pairs"]
    if facts["decided"]:
        won, p = share_of(facts["first_won"], facts["decided"]), facts["first_share_p"]
        parts.append(f"the first response won {won} verdicts (p = {p:.2g})")
    if facts["unequal_lengths"]:
        parts.append(f"the longer one won {share_of(facts['longer_won'], facts['unequal_lengths'])} answers")
    if facts["without_verdict"]:
        parts.append(f"no verdict about {facts['without_verdict']}")
    return ", ".join(parts)


def spending(spent: Spent, settings: JudgeSettings) -> dict[str, Any]:
    """Calls and tokens, and the price where the settings say what a token costs."""
    facts: dict[str, Any] = {
        "calls": spent.calls,
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
    }
    price = price_of(spent.prompt_tokens, spent.completion_tokens, settings)
    return facts if price is None else facts | {"price": price}


def price_of(prompt_tokens: int, completion_tokens: int, settings: JudgeSettings) -> float | None:
    """What tokens cost by the given prices; None where none was given."""
    if settings.price_input is None and settings.price_output is None:
        return None
    return (prompt_tokens * (settings.price_input or 0) + completion_tokens * (settings.price_output or 0)) / 1_000_000


@dataclass(frozen=True, kw_only=True)
class JudgeStatistics:
    """How a judge answered.

    Attributes:
        pairs: Pairs with a verdict in both orders.
        consistent: Of these, those with the same one in both.
        decided: Verdicts, one an order, that name a response.
        first_won: Of these, those for the one that stood first.
        leaning: Pairs in which one position won more verdicts than the other.
        leaning_first: Of these, those in which the first did.
        named: Pairs whose answer names a response, of two that are not equally long in characters.
        longer_won: Of these, those that name the longer one.
        without_verdict: Pairs that were asked about, and have no answer in an order.
        unreadable: Replies from which nothing could be read, by reason.

    """

    pairs: int
    consistent: int
    decided: int
    first_won: int
    leaning: int
    leaning_first: int
    named: int
    longer_won: int
    without_verdict: int
    unreadable: Mapping[str, int]

    @property
    def is_biased(self) -> bool:
        """Whether after enough pairs the orders disagree on most, or one position nearly always wins."""
        if self.pairs < CHECKED_AFTER:
            return False
        if self.consistent < LEAST_CONSISTENCY * self.pairs:
            return True
        most = max(self.first_won, self.decided - self.first_won)
        is_one_sided = self.decided > 0 and most >= MOST_OF_ONE_POSITION * self.decided
        return is_one_sided and self.first_p < SURE  # a few pairs among many ties say nothing

    @property
    def first_p(self) -> float:
        """The p-value of the sign test that neither position wins more pairs than the other.

        A pair counts once, since its two verdicts are no two coins: a judge that looks at the texts gives each position one,
        and one without randomness whose taste depends on the pair gives both to the same.
        """
        return binomial_p(self.leaning_first, self.leaning)

    @property
    def in_words(self) -> str:
        """Consistency, the share of the first position, and beside them how often the longer response won."""
        return _in_words(self.as_facts())

    def as_facts(self) -> dict[str, Any]:
        """For records."""
        return {
            "pairs": self.pairs,
            "consistent": self.consistent,
            "consistency": _ratio(self.consistent, self.pairs),
            "decided": self.decided,
            "first_won": self.first_won,
            "first_share": _ratio(self.first_won, self.decided),
            "first_share_p": self.first_p if self.decided else None,
            "leaning": self.leaning,
            "leaning_first": self.leaning_first,
            "unequal_lengths": self.named,
            "longer_won": self.longer_won,
            "longer_share": _ratio(self.longer_won, self.named),
            "without_verdict": self.without_verdict,
            "unreadable": dict(self.unreadable),
        }


def statistics_of(comparisons: Sequence[Comparison], known: Sequence[Judgement]) -> JudgeStatistics:
    """The statistics of what a judge said of some pairs."""
    readable = [judgement for judgement in known if judgement.probability is not None]
    won = [
        (
            (judgement.a_first == "a") + (judgement.b_first == "b"),
            (judgement.a_first == "b") + (judgement.b_first == "a"),
        )
        for judgement in readable
    ]
    first_won = sum(first for first, _ in won)
    longer = [
        (len(pair.response_a.text) > len(pair.response_b.text)) == (judgement.preferred == "a")
        for pair, judgement in zip(comparisons, known, strict=True)
        if judgement.preferred in ("a", "b") and len(pair.response_a.text) != len(pair.response_b.text)
    ]
    return JudgeStatistics(
        pairs=len(readable),
        consistent=sum(judgement.a_first == judgement.b_first for judgement in readable),
        decided=sum(first + second for first, second in won),
        first_won=first_won,
        leaning=sum(first != second for first, second in won),
        leaning_first=sum(first > second for first, second in won),
        named=len(longer),
        longer_won=sum(longer),
        without_verdict=sum(bool(judgement.unreadable) and judgement.probability is None for judgement in known),
        unreadable=dict(sum((Counter(judgement.unreadable) for judgement in known), Counter[str]())),
    )


def _open(context: Context, *, anew: bool = False) -> Judge:
    own = context.folder.reply_log()
    if anew:
        own.begin_anew()
    memory = KeptReplies(context.run, own, context.progress)
    return open_judge(context.settings.label.oracle, context.settings.label, memory)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
