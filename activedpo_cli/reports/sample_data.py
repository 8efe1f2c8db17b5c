"""A few responses to held-out prompts, of the initial model and of the last policy."""

from dataclasses import dataclass
from statistics import fmean

from activedpo_cli.base.records import EvaluatedResponse, PromptText, Response, ResponseReward
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder

SHOWN_PROMPTS = 4
LONGEST_TEXT = 3000
"""Characters of a text that are shown."""

Rewards = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class SampledText:
    """A response as it is shown; `left_out` counts the characters that are not."""

    response_id: str
    text: str
    left_out: int
    was_cut_off: bool
    reward: float | None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A held-out prompt with the response of the initial model and that of the last policy to it."""

    prompt_id: str
    prompt: PromptText
    iteration: int
    labels_spent: int
    initial: SampledText
    last: SampledText


def read_samples(run: Run, manifests: dict[str, Manifest]) -> list[Answered]:
    """Sample 0 of the first held-out prompts, not picked by hand; none before the first evaluation is finished."""
    evaluated = [manifest.iteration for manifest in manifests.values() if manifest.stage == "evaluate"]
    if not evaluated or "initial-evaluation" not in manifests:
        return []
    iteration = max(evaluated)
    folder = run.stage("evaluate", iteration)
    metrics = folder.read_json("metrics.json")
    rows = folder.read_rows("samples.jsonl", EvaluatedResponse)
    rewards = {row.response_id: row.reward for row in rows if row.reward is not None}
    initial_rewards = _initial_rewards(run.initial_evaluation, metrics["scorer"], metrics["reward_mean_initial"])
    before, after = _first_responses(run.initial_evaluation), _first_responses(folder)
    prompts = {prompt.prompt_id: prompt.prompt for prompt in run.prompts("eval")}
    names = sorted(prompts.keys() & before.keys() & after.keys())[:SHOWN_PROMPTS]
    return [
        Answered(
            prompt_id=name,
            prompt=prompts[name],
            iteration=iteration,
            labels_spent=metrics["labels_spent"],
            initial=_shown(before[name], initial_rewards),
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


def _initial_rewards(folder: StageFolder, scorer: str | None, mean: float | None) -> Rewards:
    """The scorer's rewards of the initial model's responses: those whose mean is the one it was compared with.

    A scorer whose content has changed has a file for each content.
    """
    for path in sorted(folder.path.glob("rewards-*.jsonl")):
        rows = folder.read_rows(path.name, ResponseReward)
        if (
            mean is not None
            and rows
            and rows[0].scorer == scorer
            and abs(_mean(rows) - mean) <= 1e-9 * max(1, abs(mean))
        ):
            return {row.response_id: row.reward for row in rows}
    return {}


def _mean(rows: list[ResponseReward]) -> float:
    by_prompt: dict[str, list[float]] = {}
    for row in rows:
        by_prompt.setdefault(row.response_id.partition("/")[0], []).append(row.reward)
    return fmean(fmean(values) for values in by_prompt.values())
