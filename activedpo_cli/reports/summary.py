"""What stands on top of a report: what was run, what came out, whether it beats random choice, and what to type next."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

from activedpo_cli.base.config import build_config, flat, read_value
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.presets import available_presets, read_preset
from activedpo_cli.reports.gains import gains_of, last_evaluation
from activedpo_cli.reports.over_seeds import ByScorer, groups_by_scorer
from activedpo_cli.reports.page import Answer, Summary
from activedpo_cli.reports.run_data import Evaluation, RunData
from activedpo_cli.reports.seeds import BASELINE
from activedpo_cli.reports.verdict import ANY, HOW_COMPARED, Comparison, headline, named, sentence_of
from activedpo_cli.reports.wording import listed, number, share, share_with_interval, signed, with_interval

RAN, CAME_OUT, BETTER, NEXT = "What was run", "What came out", "Better than random choice?", "What next"
MOST_COMMANDS = 3
AS_METHODS_NEED = ("featurize.compute", "select.method", "select.methods.", "seed")
"""Settings that a run by another method has of its own, or that are typed by other options."""
TAKEN_FROM = {"evaluate.max_new_tokens": "generate.max_new_tokens", "evaluate.scorer": "label.oracle"}
"""Settings that stand for others where nobody gave them."""


def summary_of(runs: Sequence[RunData]) -> Summary:
    """The summary of a report about some runs."""
    compared = compared_with_random(runs)
    message = _message_of_one(runs[0]) if len(runs) == 1 else _message_of_several(runs, compared)
    came_out = _what_came_out(runs[0]) if len(runs) == 1 else _ends_of(runs)
    return Summary(
        message=message,
        answers=[
            Answer(RAN, _what_was_run(runs)),
            Answer(CAME_OUT, came_out),
            Answer(BETTER, _better_than_random(runs, compared)),
            _what_next(runs, compared),
        ],
    )


def compared_with_random(runs: Sequence[RunData]) -> list[tuple[ByScorer, list[Comparison]]]:
    """By scorer the groups of seeds against that of method `random`; nothing without such a group, or shared seeds."""
    return [
        (scored_by, rows)
        for scored_by in groups_by_scorer(runs)
        if scored_by.compared.methods == [BASELINE] and (rows := scored_by.comparisons())
    ]


def _message_of_one(run: RunData) -> str:
    last, gains = last_evaluation(run), gains_of(run)
    if last is None:
        return f"Nothing is measured yet: {counted(_spent(run), 'label')} spent, no policy evaluated"
    after = f"After {counted(last.labels_spent, 'label')}"
    if not gains:
        accuracy = _accuracy(last)
        if accuracy is None:
            return f"{after} nobody scored the policy, so that nothing is known of its answers"
        return f"{after} the policy orders {share(accuracy)} of held-out preferences rightly"
    words = {
        "better": "higher than the initial model's",
        "worse": "lower than the initial model's",
        "not told": "not told from the initial model's",
        "no interval": "without an interval to judge it by",
    }
    if len({gain.change for gain in gains}) == 1:
        by = "both scorers" if len(gains) > 1 else gains[0].scorer
        return f"{after} reward is {words[gains[0].change]}, by {by}"
    first, second = (f"{words[gain.change]} by {gain.scorer}" for gain in gains)
    return f"{after} reward is {first}, but {second}"


def _message_of_several(runs: Sequence[RunData], compared: Sequence[tuple[ByScorer, list[Comparison]]]) -> str:
    if compared:
        measures = [(_measure(scored_by), found) for scored_by, found in compared]
        return headline(measures, compared[0][0].compared.label)
    methods = list(dict.fromkeys(" then ".join(run.methods) or "no method" for run in runs))
    if BASELINE in methods and len(methods) > 1:
        others = [method for method in methods if method != BASELINE]
        return f"Too few seeds to tell {named(others, ANY)} from {BASELINE}"
    return f"{len(runs)} runs beside each other, none of them compared with {BASELINE} over seeds"


def _what_was_run(runs: Sequence[RunData]) -> list[str]:
    methods = list(dict.fromkeys(" then ".join(run.methods) for run in runs if run.methods))
    models = list(dict.fromkeys(run.model for run in runs))
    oracles = list(dict.fromkeys(row.oracle for run in runs for row in run.labels))
    iterations = [max((fact.iteration for fact in run.stages), default=0) for run in runs]
    rounds = f"{min(iterations)} to {max(iterations)}" if len(set(iterations)) > 1 else str(iterations[0])
    spent = sum(map(_spent, runs))
    model = ("Model " if len(models) == 1 else "Models ") + named(models, "{}")
    chosen = f", pairs chosen by {named(methods, '{} methods')}" if methods else ""
    labels = f"{counted(spent, 'label')} by {named(oracles, '{} oracles')}" if oracles else counted(spent, "label")
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    sown = f" Seed\N{NO-BREAK SPACE}{seeds[0]}." if len(seeds) == 1 else f" {len(seeds)} seeds." if seeds else ""
    unit = "iteration" if rounds == "1" else "iterations"
    return [f"{model}, {counted(len(runs), 'run')}, {rounds} {unit}{chosen}", f"{labels}.{sown}"]


def _what_came_out(run: RunData) -> list[str]:
    last = last_evaluation(run)
    if last is None:
        return ["No policy was evaluated yet"]
    metrics, sentences = last.metrics, []
    for gain in gains_of(run):
        change = f"{number(gain.initial, 2)} → {number(gain.now, 2)}: {signed(gain.reward)}"
        won = f", {share_with_interval(*gain.win_rate)} of comparisons won" if gain.win_rate else ""
        sentences.append(f"Reward {change} by {gain.scorer}{won}")
    if metrics.get("preference_accuracy") is not None:
        ends = (metrics.get("preference_accuracy_ci_low"), metrics.get("preference_accuracy_ci_high"))
        accuracy = share_with_interval(metrics["preference_accuracy"], *ends)
        sentences.append(f"{accuracy} of held-out preferences ordered rightly")
    prompts = metrics.get("n")
    if sentences and prompts is not None:
        sentences.append(
            f"Beside the initial model on {prompts} held-out prompts. Brackets are 95 % intervals over prompts."
        )
    return sentences or ["Nobody scored the responses"]


def _ends_of(runs: Sequence[RunData]) -> list[str]:
    """How the runs end by the first scorer, the best first; of many the first and the last."""
    ends = []
    for run in runs:
        last = last_evaluation(run)
        if last is not None and last.metrics.get("reward_mean") is not None:
            ends.append((last.metrics["reward_mean"], run.name, last))
    if not ends:
        return ["Nobody scored any of them"]
    ends.sort(key=lambda row: -row[0])
    shown = ends if len(ends) <= 4 else [ends[0], ends[-1]]
    sentences = []
    for mean, name, last in shown:
        interval = with_interval(mean, last.metrics.get("reward_ci_low"), last.metrics.get("reward_ci_high"))
        sentences.append(f"{name}: reward {interval} after {counted(last.labels_spent, 'label')}")
    if len(ends) > len(shown):
        sentences.append(f"These two are the highest and the lowest of {len(ends)}.")
    return [*sentences, "Brackets are 95 % intervals over prompts, each for its run alone."]


def _better_than_random(runs: Sequence[RunData], compared: Sequence[tuple[ByScorer, list[Comparison]]]) -> list[str]:
    if compared:
        return [
            *(
                sentence_of(row, scored_by.compared.label, _measure(scored_by))
                for scored_by, found in compared
                for row in found
            ),
            HOW_COMPARED,
        ]
    by_chance = [run for run in runs if run.methods == [BASELINE]]
    others = [run for run in runs if run.methods and run.methods != [BASELINE]]
    if by_chance and others:
        return [
            f"This page can't say. It takes runs of at least six seeds by each method, and another seed may turn around "
            f"what one shows: {listed([_end(run) for run in [*others[:2], by_chance[0]]])}"
        ]
    if by_chance:
        return ["Every run here chose at random"]
    return ["This page can't say: no run on it chose at random"]


def _measure(scored_by: ByScorer) -> str:
    return f"reward {scored_by.title}"


def _end(run: RunData) -> str:
    last = last_evaluation(run)
    mean = None if last is None else last.metrics.get("reward_mean")
    return f"{run.name} ends without a reward" if mean is None else f"{run.name} ends at {number(mean)}"


def _what_next(runs: Sequence[RunData], compared: Sequence[tuple[ByScorer, list[Comparison]]]) -> Answer:
    if begun := [run for run in runs if open_stages(run)]:
        commands = [f"activedpo run --run {shlex.quote(run.name)}" for run in begun]
        stages = sum(len(open_stages(run)) for run in begun)
        names = named([run.name for run in begun], "{} runs")
        return Answer(
            NEXT,
            [f"Finish {names}: {counted(stages, 'stage', ('is', 'are'))} open"],
            "\n".join(commands[:MOST_COMMANDS]),
        )
    unscored = [run for run in runs if (last := last_evaluation(run)) and not gains_of(run) and not _accuracy(last)]
    if unscored:
        names = named([run.name for run in unscored], "{} runs")
        return Answer(NEXT, [f"Let a scorer say what {names} came to"], _scoring_command(unscored[0]))
    if compared and any(row.verdict == "better" for _, found in compared[:1] for row in found):
        scored_by, found = compared[0]
        best = max(found, key=lambda row: (row.verdict == "better", row.interval.mean)).name
        run = next(iter(next(row.group for row in scored_by.rows if row.group.label == best).runs.values()))
        more = max(fact.iteration for fact in run.stages) + 1
        return _and_take_it_elsewhere(
            Answer(
                NEXT,
                [f"Buy labels for one more iteration with {best}"],
                f"activedpo run --run {shlex.quote(run.name)} --iterations {more}",
            ),
            run,
        )
    if any(run.methods == [BASELINE] for run in runs):
        return Answer(
            NEXT,
            ["Compare more seeds, at least six, by a file with these settings; activedpo experiment --help says how"],
            "activedpo experiment mine.yaml",
        )
    sibling = _random_sibling(runs[0])
    return _and_take_it_elsewhere(sibling, runs[0]) if len(runs) == 1 else sibling


def _and_take_it_elsewhere(answer: Answer, run: RunData) -> Answer:
    """The answer, and what makes whole weights of the policy that the run ends with, where that is no worse than before."""
    last = last_evaluation(run)
    if last is None or last.iteration == 0 or any(gain.change == "worse" for gain in gains_of(run)):
        return answer
    export = f"activedpo export --run {shlex.quote(run.name)} --merged"
    return Answer(
        answer.question,
        [*answer.sentences, f"Take the policy of {run.name} as it is to another program"],
        "\n".join(filter(None, [answer.command, export])),
    )


def _scoring_command(run: RunData) -> str:
    """What measures the last policy of a run again, with a scorer."""
    last = last_evaluation(run)
    iteration = 1 if last is None else last.iteration
    return (
        f"activedpo evaluate --run {shlex.quote(run.name)} --iteration {iteration} --scorer reward-model:MODEL --force"
    )


def _accuracy(last: Evaluation) -> float | None:
    """The share of held-out preferences that the policy orders rightly; None where there were none."""
    return last.metrics.get("preference_accuracy")


def open_stages(run: RunData) -> list[str]:
    """What is to be done in iterations that are not at their end; a stage deleted after it was read is not."""
    end = "train" if run.settings.get("prompts.eval_prompts") == [0] else "evaluate"
    begun = [name.partition("/")[0] for name in run.unfinished if name.endswith(f"/{end}")]
    return [name for name in run.unfinished if name.partition("/")[0] in begun]


def _random_sibling(run: RunData) -> Answer:
    """The command for a run with the same settings that chooses at random, and the page about both."""
    command = random_command(run)
    sentence = "Make the run that chooses at random, with the same settings, and put both on one page"
    if command is None:
        return Answer(NEXT, [f"{sentence}. Its settings changed on the way, so that they have to be chosen by hand."])
    both = f"activedpo report {shlex.quote(run.name)} {shlex.quote(run.name + '-random')}"
    return Answer(NEXT, [sentence], f"{command}\n{both}")


def random_command(run: RunData) -> str | None:
    """What makes a run of the same settings by method `random`; None where the settings of this one changed on the way."""
    own = {key: values for key, values in run.settings.items() if not key.startswith(AS_METHODS_NEED)}
    if run.preset not in available_presets() or any(len(values) != 1 for values in own.values()):
        return None
    standard = flat(build_config(read_preset(run.preset)), *_sections(own))
    given = {
        key: value
        for key, (value,) in own.items()
        if key in standard and value != standard[key] and not _stands_for_another(key, value, standard, own)
    }
    words = ["activedpo", "run", "--run", f"{run.name}-random", "--preset", run.preset, "--method", BASELINE]
    words += ["--iterations", str(max(fact.iteration for fact in run.stages))]
    words += [] if run.seed is None else ["--seed", str(run.seed)]
    words += [word for key, value in given.items() for word in ("--set", f"{key}={_spelled(value)}")]
    return " ".join(map(shlex.quote, words))


def _sections(settings: dict[str, list[Any]]) -> set[str]:
    return {key.partition(".")[0] for key in settings if "." in key}


def _stands_for_another(key: str, value: Any, standard: dict[str, Any], own: dict[str, list[Any]]) -> bool:
    other = TAKEN_FROM.get(key)
    return other is not None and standard[key] is None and own.get(other) == [value]


def _spelled(value: Any) -> str:
    """A value as it is typed after `--set key=`, which reads YAML."""
    return value if isinstance(value, str) and read_value(value) == value else json.dumps(value)


def _spent(run: RunData) -> int:
    return sum(row.labels_spent for row in run.labels)
