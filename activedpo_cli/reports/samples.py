"""A few responses to held-out prompts, of the initial model and of the last policy."""

from collections.abc import Sequence
from itertools import zip_longest

from activedpo_cli.base.records import EvaluatedResponse, Response, prompt_as_text
from activedpo_cli.reports.page import Sample, Section
from activedpo_cli.reports.rewards import initial_rewards
from activedpo_cli.reports.run_data import Answered, RunData, SampledText
from activedpo_cli.reports.seeds import seed_groups, ungrouped
from activedpo_cli.reports.wording import listed, number
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder

SHOWN_PROMPTS = 4
LONGEST_TEXT = 3000
"""Characters of a text that are shown."""
Rewards = dict[str, float]
MOST_RUNS = 4
"""Runs whose responses are shown."""


def read_samples(run: Run, manifests: dict[str, Manifest]) -> list[Answered]:
    """Sample 0 of the first held-out prompts, not picked by hand; none before the first evaluation is finished."""
    evaluations = {manifest.iteration: manifest for manifest in manifests.values() if manifest.stage == "evaluate"}
    if not evaluations or "initial-evaluation" not in manifests:
        return []
    iteration = max(evaluations)
    folder = run.stage("evaluate", iteration)
    metrics = folder.read_json("metrics.json")
    rows = folder.read_rows("samples.jsonl", EvaluatedResponse)
    rewards = {row.response_id: row.reward for row in rows if row.reward is not None}
    scorer = metrics["scorer"]
    before_training = initial_rewards(run, scorer, evaluations[iteration]) if scorer is not None else {}
    before, after = _first_responses(run.initial_evaluation), _first_responses(folder)
    prompts = {prompt.prompt_id: prompt.prompt for prompt in run.prompts("eval")}
    names = sorted(prompts.keys() & before.keys() & after.keys())[:SHOWN_PROMPTS]
    return [
        Answered(
            prompt_id=name,
            prompt=prompts[name],
            iteration=iteration,
            labels_spent=metrics["labels_spent"],
            initial=_shown(before[name], before_training),
            last=_shown(after[name], rewards),
        )
        for name in names
    ]


def shortened(text: str) -> tuple[str, int]:
    """The beginning of a long text, and how many characters are left out."""
    return text[:LONGEST_TEXT], max(0, len(text) - LONGEST_TEXT)


def _first_responses(folder: StageFolder) -> dict[str, Response]:
    """The first response to each prompt, by prompt."""
    found: dict[str, Response] = {}
    for path in sorted(folder.path.glob("responses-*.jsonl")):
        for row in folder.read_rows(path.name, Response):
            found.setdefault(row.prompt_id, row)
    return found


def _shown(response: Response, rewards: Rewards) -> SampledText:
    text, left_out = shortened(response.text)
    return SampledText(
        response_id=response.response_id,
        text=text,
        left_out=left_out,
        was_cut_off=response.finish_reason == "length",
        reward=rewards.get(response.response_id),
    )


def sample_section(runs: Sequence[RunData]) -> Section | None:
    """Responses to a few held-out prompts, runs beside each other where they share them; None without an evaluation.

    Of many runs a few are shown, from every group of seeds in turn.
    """
    sampled = [run for run in runs if run.samples]
    shown = _few(sampled)
    groups: dict[tuple[str, str, SampledText], list[tuple[RunData, Answered]]] = {}
    for run in shown:
        for answered in run.samples:
            key = (answered.prompt_id, prompt_as_text(answered.prompt), answered.initial)
            groups.setdefault(key, []).append((run, answered))
    if not groups:
        return None
    sentences = [
        "The first held-out prompts by id and the first response to each, not picked by hand. This is text that models "
        "wrote: characters that could steer a screen are written out, such as \\u202e."
    ]
    if len(shown) < len(sampled):
        sentences.append(
            f"Only {listed([run.name for run in shown])} are shown; report.json has the texts of all runs."
        )
    samples = [
        _sample(prompt, initial, members, is_named=len(runs) > 1) for (_, prompt, initial), members in groups.items()
    ]
    return Section(anchor="samples", title="Sample responses", sentences=sentences, samples=samples)


def _few(runs: Sequence[RunData]) -> list[RunData]:
    """At most `MOST_RUNS`: the first seed of every group, then the second, and runs of no group last."""
    groups = seed_groups(runs)
    in_turn = [run for rank in zip_longest(*(group.runs.values() for group in groups)) for run in rank if run]
    wanted = {run.name for run in [*in_turn, *ungrouped(runs, groups)][:MOST_RUNS]}
    return [run for run in runs if run.name in wanted]


def _sample(
    prompt: str, initial: SampledText, members: Sequence[tuple[RunData, Answered]], *, is_named: bool
) -> Sample:
    texts = [(_heading("initial model", initial), _with_rest(initial.text, initial.left_out))]
    for run, answered in members:
        who = f"{run.name}, " if is_named else ""
        who += f"iteration {answered.iteration}, {answered.labels_spent} labels"
        texts.append((_heading(who, answered.last), _with_rest(answered.last.text, answered.last.left_out)))
    is_shared = not is_named or len(members) > 1
    title = members[0][1].prompt_id if is_shared else f"{members[0][0].name}: {members[0][1].prompt_id}"
    return Sample(title=title, prompt=_with_rest(*shortened(prompt)), texts=texts)


def _heading(who: str, shown: SampledText) -> str:
    facts = [who]
    if shown.reward is not None:
        facts.append(f"reward {number(shown.reward)}")
    if shown.was_cut_off:
        facts.append("cut off by the length limit")
    return " · ".join(facts)


def _with_rest(text: str, left_out: int) -> str:
    return text + (f"\n… {left_out} more characters" if left_out else "")
